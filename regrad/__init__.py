"""regrad tells which images a pre-trained classifier does not understand.

from regrad import Classifier, Scorer
scorer = Scorer(Classifier.load("torchvision:resnet50@IMAGENET1K_V2"), scores=["regrad", "entropy"])
columns = scorer(images, ids)   # images in [0, 1], (B, channels, H, W); larger = more uncertain
"""

from typing import TYPE_CHECKING, Any

from regrad.errors import RegradError, UsageError

if TYPE_CHECKING:
    from regrad.classifier import Classifier
    from regrad.scorer import Scorer

__version__ = "0.1.0"
__all__ = ["Classifier", "RegradError", "Scorer", "UsageError", "__version__"]


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is asked for: a job must not wait for what it does not use."""
    if name == "Classifier":
        from regrad.classifier import Classifier

        return Classifier
    if name == "Scorer":
        from regrad.scorer import Scorer

        return Scorer
    raise AttributeError(f"module {__name__} has no attribute {name}")
