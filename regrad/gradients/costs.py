"""What an exact pass takes in memory, and how many targets go together for that."""

from __future__ import annotations

from dataclasses import dataclass

ENOUGH = 256 << 20  # bytes of an operation that takes far longer than its launch: 0.1 ms of an H100's memory
JOINED = 8  # targets: of more a product is not faster


@dataclass(frozen=True)
class Costs:
    """Bytes of one copy of an image, and how many targets go at once for them.

    Attributes:
        targets: all that there are.
        least: for one target at a time.
        further: for each target that goes at the same time.
        output: of one layer's output gradient, in the mean.
        joined: how many targets that go one after another wait for their norms to be formed together.
    """

    targets: int
    least: int
    further: int
    output: int
    joined: int = 1

    def targets_at_once(self, bytes_per_input: int, inputs: int) -> int:
        """As many as there is memory for, and as save launches: none where an operation on one is large already.

        They come in passes of about the same size.
        """
        fitting = 1 + max(0, bytes_per_input - self.least) // max(1, self.further)
        worth = -(-ENOUGH // max(1, inputs * self.output))
        return evenly(self.targets, min(self.targets, fitting, worth))


def evenly(total: int, most: int) -> int:
    """How many go together, at the most, in as few groups of about the same size as ``most`` allows.

    >>> evenly(10, 7)
    5
    """
    return -(-total // -(-total // most))
