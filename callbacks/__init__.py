"""Lightning callbacks: when to measure, and what to log. None of them changes the training."""

from .curves import RobustnessCurves
from .gradient_norm import GradientNorm
from .predictions import Predictions
from .probe import Probe
from .recurrent_jacobian import RecurrentJacobian
from .robust_accuracy import RobustAccuracy
from .run_record import RunRecord

__all__ = [
    "GradientNorm",
    "Predictions",
    "Probe",
    "RecurrentJacobian",
    "RobustAccuracy",
    "RobustnessCurves",
    "RunRecord",
]
