"""What is fitted on training data, as tensors that can be stored and handed to workers."""

from __future__ import annotations

import hashlib

from torch import Tensor

State = dict[str, Tensor]


def fingerprint(state: State) -> str:
    """SHA-256 of what was fitted."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name}|{tuple(state[name].shape)}|".encode())
        digest.update(state[name].cpu().double().numpy().tobytes())
    return digest.hexdigest()
