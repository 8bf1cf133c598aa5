"""Every classification network of torchvision and timm: ``python -m regrad.experiments.sweep``."""
