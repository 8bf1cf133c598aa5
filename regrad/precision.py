"""How finely a network computes while it is scored; probabilities, norms and scores are float64 sums throughout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# float32: the network's own type in full, on a GPU too, where PyTorch would round convolutions;
# tf32: factors of products rounded to 10 bits of mantissa, on GPUs that can; bfloat16: everything rounded to 7 bits.
PRECISIONS = ("float32", "tf32", "bfloat16")


@contextmanager
def computing(precision: str) -> Iterator[None]:
    """Let the GPU's float32 products be rounded or not meanwhile, as ``precision`` says."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
