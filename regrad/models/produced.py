"""Which operation made a tensor, as the dispatcher saw it: a softmax at a network's end is found, not guessed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_KEPT = 64  # the last operations; their results are kept alive, so that no other tensor gets an id of theirs
_SAME_NUMBERS = {
    *("view", "_unsafe_view", "_reshape_alias", "reshape", "squeeze", "unsqueeze", "clone", "_to_copy", "alias"),
    *("detach", "flatten", "select", "slice", "split", "permute", "transpose", "t", "expand", "contiguous", "copy_"),
}


def last_operation(call: Callable[[], Tensor]) -> str | None:
    """The name of the operation that made the numbers of ``call()``, such as ``_softmax``; None where it is not seen.

    Views, copies and conversions of them are looked through.
    """
    try:
        with _Recording() as recording:
            result = call()
    except Exception:  # a program that allows no such look, compiled ones for instance
        return None
    made = {id(output): (name, source) for name, source, output in recording.made}
    name, tensor = None, result
    while id(tensor) in made:
        name, source = made[id(tensor)]
        if name not in _SAME_NUMBERS or source is None or source is tensor:
            return name
        tensor = source
    return None


class _Recording(TorchDispatchMode):
    """Notes what each operation made, and what of."""

    def __init__(self) -> None:
        super().__init__()
        self.made: deque[tuple[str, Tensor | None, Tensor]] = deque(maxlen=_KEPT)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        source = next((item for item in tree_leaves(args) if isinstance(item, Tensor)), None)
        name = func.overloadpacket.__name__
        self.made.extend((name, source, item) for item in tree_leaves(result) if isinstance(item, Tensor))
        return result
