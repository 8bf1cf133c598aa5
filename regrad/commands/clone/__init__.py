"""The commands that only a clone of the repository has: what they measure with is in no wheel."""

import importlib.util

from regrad.errors import UsageError


def require_experiments(command: str) -> None:
    """Refuse where the experiments are not installed: they are in the repository, not in the wheel.

    Raises:
        UsageError: they are not.
    """
    if importlib.util.find_spec("regrad.experiments") is None:
        raise UsageError(
            f"regrad {command}: the experiments are not installed with regrad; in a clone of its repository, "
            f"`python -m regrad {command}` has them"
        )
