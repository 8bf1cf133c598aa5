"""From shards to committed scores, without Ray; and :class:`ScoreImages` for a Ray Data pipeline of one's own."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regrad.pipeline.score_images import ScoreImages as ScoreImages


def __getattr__(name: str) -> Any:
    if name == "ScoreImages":  # imported when it is asked for: a job must not wait for what it does not use
        from regrad.pipeline.score_images import ScoreImages

        return ScoreImages
    raise AttributeError(f"module {__name__} has no attribute {name}")
