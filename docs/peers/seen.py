"""A score that is 0, and tells when something was scored: a line of time, process and rows a batch."""

import os
import time

import torch

from regrad.scores import Inputs, score


@score()
def seen(inputs: Inputs) -> torch.Tensor:
    """0 for every image."""
    with open(os.environ["REGRAD_PEERS_LOG"], "a") as log:
        log.write(f"{time.time()} {os.getpid()} {len(inputs.logits)}\n")
    return torch.zeros(len(inputs.logits), dtype=torch.float64)
