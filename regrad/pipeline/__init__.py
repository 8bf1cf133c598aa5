"""From shards to committed scores, and :class:`ScoreImages` for a Ray Data pipeline of one's own.

Only ``cluster``, ``run``, ``metrics`` and ``submit`` import Ray: everything else works without it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regrad.pipeline.score_images import ScoreImages as ScoreImages


def __getattr__(name: str) -> Any:
    if name == "ScoreImages":  # imported when it is asked for: a job must not wait for what it does not use
        from regrad.pipeline.score_images import ScoreImages

        return ScoreImages
    raise AttributeError(f"module {__name__} has no attribute {name}")
