"""The methods of the paper's tables, one family a file, and their registry."""

from typing import TYPE_CHECKING, Any

from regrad.scores import registry
from regrad.scores.registry import (
    Features,
    Head,
    Inputs,
    Norms,
    Predictions,
    Score,
    find_scores,
    in_order,
    listing,
    load_module,
    score,
)

if TYPE_CHECKING:
    from regrad.scores.registry import SCORES

registry.load_families()

__all__ = [
    "SCORES",
    "Features",
    "Head",
    "Inputs",
    "Norms",
    "Predictions",
    "Score",
    "find_scores",
    "in_order",
    "listing",
    "load_module",
    "score",
]


def __getattr__(name: str) -> Any:
    """:data:`SCORES` with those of installed packages, which may import what imports this."""
    if name == "SCORES":
        registry.load_installed()
        return registry.SCORES
    raise AttributeError(f"module {__name__} has no attribute {name}")
