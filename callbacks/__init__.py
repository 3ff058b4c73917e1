"""Lightning callbacks: when to measure, and what to log. None that measures changes the training."""

from .attention_maps import AttentionMaps
from .augmentation_gallery import AugmentationGallery
from .catastrophic_overfitting import CatastrophicOverfitting
from .curves import RobustnessCurves
from .deep_dream import DeepDream
from .exact_resume import ExactResume
from .find_learning_rate import FindLearningRate
from .finetuning import Finetuning
from .gradient_norm import GradientNorm
from .health import Health
from .input_gradients import InputGradients
from .least_visible import LeastVisible
from .logs_may_fail import LogsMayFail
from .named_predictions import NamedPredictions
from .not_finite import NotFinite
from .per_class import PerClass
from .predictions import Predictions
from .probe import Probe
from .recurrent_jacobian import RecurrentJacobian
from .robust_accuracy import RobustAccuracy
from .robust_language import RobustLanguage
from .run_record import RunRecord
from .saturation import Saturation
from .standard_against_robust import StandardAgainstRobust
from .targeted_pictures import TargetedPictures

__all__ = [
    "AttentionMaps",
    "AugmentationGallery",
    "CatastrophicOverfitting",
    "DeepDream",
    "ExactResume",
    "FindLearningRate",
    "Finetuning",
    "GradientNorm",
    "Health",
    "LeastVisible",
    "InputGradients",
    "LogsMayFail",
    "NamedPredictions",
    "NotFinite",
    "PerClass",
    "Predictions",
    "Probe",
    "RecurrentJacobian",
    "RobustAccuracy",
    "RobustLanguage",
    "RobustnessCurves",
    "RunRecord",
    "Saturation",
    "StandardAgainstRobust",
    "TargetedPictures",
]
