"""Ways for a classifier to learn: one strategy a file, each a loss from a batch."""

from .pgd_at import PGDAT
from .strategy import Learned, Strategy

__all__ = ["PGDAT", "Learned", "Strategy"]
