"""The methods of the paper's tables, one family a file, and their registry."""

from regrad.scores.registry import (
    SCORES,
    Inputs,
    Norms,
    Predictions,
    Score,
    find_scores,
    listing,
    load_families,
    load_module,
    score,
)

load_families()

__all__ = ["SCORES", "Inputs", "Norms", "Predictions", "Score", "find_scores", "listing", "load_module", "score"]
