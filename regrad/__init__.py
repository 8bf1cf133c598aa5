"""regrad tells which images a pre-trained classifier does not understand.

from regrad import Classifier, Scorer
scorer = Scorer(Classifier.load("torchvision:resnet50@IMAGENET1K_V2"), scores=["regrad", "entropy"])
columns = scorer(images, ids)   # images in [0, 1], (B, channels, H, W); larger = more uncertain
"""

from regrad.classifier import Classifier
from regrad.errors import RegradError, UsageError
from regrad.scorer import Scorer

__version__ = "0.1.0"
__all__ = ["Classifier", "RegradError", "Scorer", "UsageError", "__version__"]
