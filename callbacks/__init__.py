"""Lightning callbacks: when to measure, and what to log. None that measures changes the training."""

from .curves import RobustnessCurves
from .exact_resume import ExactResume
from .gradient_norm import GradientNorm
from .predictions import Predictions
from .probe import Probe
from .robust_accuracy import RobustAccuracy
from .run_record import RunRecord

__all__ = ["ExactResume", "GradientNorm", "Predictions", "Probe", "RobustAccuracy", "RobustnessCurves", "RunRecord"]
