"""What a network returns, read as logits (B, C): where they are in it, and what its numbers are already.

A network's return value may be an object that holds logits, one logit z for two classes, or probabilities p:

    one logit z         (-z/2, z/2): softmax gives sigmoid(z), and a score is the same whichever class is called 1
    probabilities p     log p, since softmax(log p) = p; what is below the type's smallest normal number counts as it
    log-probabilities   as they are

The reading is a forward hook on a shallow copy: parameters, names and order of the layers stay those of the network,
and so do its gradients.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from regrad.errors import UsageError
from regrad.models.returned import Place, at, find_tensor, fits
from regrad.network.hooks import hooked, with_own_hooks
from regrad.network.operations import Operations

OUTPUTS = ("logits", "probabilities", "log-probabilities")

_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-4}  # of a sum that is 1; halves have two or three digits
_DRIVEN = (30.0, -30.0)  # inputs as strong as this leave a range if anything does
_SPAN = 0.9  # of [0, 1]: what saturates covers as much, what only happens to be small does not
_MADE = {
    **dict.fromkeys(("_softmax", "_safe_softmax", "sigmoid", "hardsigmoid"), "probabilities"),
    **dict.fromkeys(("_log_softmax", "log_sigmoid_forward"), "log-probabilities"),
}
_HEADS = (nn.Linear, nn.Conv1d, nn.Conv2d)
_OPERATIONS = 64  # looked back at; their results are kept alive, so that no other tensor gets an id of theirs
_SAME_NUMBERS = {
    *("view", "_unsafe_view", "_reshape_alias", "reshape", "squeeze", "unsqueeze", "clone", "_to_copy", "alias"),
    *("detach", "flatten", "select", "slice", "split", "permute", "transpose", "t", "expand", "contiguous", "copy_"),
}


@dataclass(frozen=True)
class Reading:
    """How what a network returns becomes logits; a forward hook.

    Attributes:
        place: the keys, attributes or positions that lead to the tensor.
        columns: how many numbers it has for an image: C, or 1 for two classes.
        outputs: what they are, of :data:`OUTPUTS`.
        reshapes: whether the tensor has another shape than (B, columns).
        notes: what was assumed, a line each.
    """

    place: Place
    columns: int
    outputs: str = "logits"
    reshapes: bool = False
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """C of the logits."""
        return max(2, self.columns)

    @property
    def conversion(self) -> str | None:
        """What is done to the network's numbers, in words; None where they are the logits."""
        single = "one number for two classes, " if self.columns == 1 else ""
        return f"{single}{self.outputs}" if single or self.outputs == "probabilities" else None

    def select(self, module: nn.Module, args: Any, returned: Any) -> Tensor:
        """The network's own numbers, (B, columns); the very tensor, where it has that shape."""
        tensor = at(returned, self.place)
        if tensor.dim() == 2 and tensor.shape[1] == self.columns:
            return tensor
        return tensor.reshape(-1, self.columns)  # (B,), (B, C, 1, 1), or a single image without its B

    def __call__(self, module: nn.Module, args: Any, returned: Any) -> Tensor:
        """The logits (B, C)."""
        return _CONVERSIONS[self.outputs][self.columns == 1](self.select(module, args, returned))


def _log(p: Tensor) -> Tensor:
    p = p if p.dtype in _ROUNDING else p.float()
    return p.clamp_min(torch.finfo(p.dtype).tiny).log()


def _as_it_is(z: Tensor) -> Tensor:
    return z


#: By what the numbers are: for C classes, and for one number, which is that of the second of two.
_CONVERSIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "logits": (_as_it_is, lambda z: torch.cat([-z / 2, z / 2], 1)),
    "probabilities": (_log, lambda p: _log(torch.cat([1 - p, p], 1))),
    "log-probabilities": (_as_it_is, lambda log_p: torch.cat([_log(-log_p.expm1()), log_p], 1)),
}
_OF_TWO = {
    "logits": "taken for the logit of class 1 of two, p = sigmoid(z)",
    "probabilities": "taken for the probability of class 1 of two",
    "log-probabilities": "taken for the log-probability of class 1 of two",
}


def returning_logits(network: nn.Module, reading: Reading) -> nn.Module:
    """``network`` if it returns logits itself, else a shallow copy that returns what ``reading`` makes of them."""
    if reading.conversion is None and not reading.place and not reading.reshapes:
        return network
    shallow = with_own_hooks(network)
    shallow.register_forward_hook(reading)
    return shallow


def returning_own(network: nn.Module, reading: Reading) -> nn.Module:
    """The same without conversion: (B, columns) numbers of the network's own."""
    shallow = with_own_hooks(network)
    shallow.register_forward_hook(reading.select)
    return shallow


def find_reading(
    network: Callable[[Tensor], Any], images: Tensor, outputs: str | None = None, names: int | None = None
) -> Reading:
    """How to read what ``network`` returns.

    Args:
        images: what it receives of several pictures.
        outputs: what the user says its numbers are, of :data:`OUTPUTS`; None: to be seen from them.
        names: how many class names there are, if that is known.

    Raises:
        UsageError: there are no logits in it, or they are probabilities already; without the network's name.
    """
    if outputs is not None and outputs not in OUTPUTS:
        raise UsageError(f"outputs {outputs!r}: one of {', '.join(OUTPUTS)}")
    returned = find_tensor(*_called(network, images, names))
    rows = returned.rows.detach()
    alone = at(network(images[:1]), returned.place)
    if not isinstance(alone, Tensor) or alone.numel() != rows.shape[1]:
        raise UsageError(f"returns {rows.shape[1]} numbers an image, but others for an image alone")
    if not bool(rows.isfinite().all()):
        raise UsageError("returns NaN or infinity for plain pictures: are its weights, mean and std right?")
    if not _close(alone.reshape(1, -1), rows[:1]) and not _close(
        find_tensor(*_called(network, images, names)).rows, rows
    ):
        raise UsageError(
            "returns other numbers each time: is a dropout or noise always on? A score has to be repeatable"
        )
    same = float(rows[0, 0]) if rows.shape[1] == 1 and bool((rows == rows[0, 0]).all()) else None
    if same is not None and same in (0.0, 1.0):
        raise UsageError(
            f"returns {same:g} for every picture, as a softmax over one class does: there is nothing to score"
        )
    reshapes = returned.shape != tuple(rows.shape) or alone.dim() != 2
    reading = Reading(returned.place, rows.shape[1], outputs or "logits", reshapes, returned.notes)
    if outputs is None:
        _refuse_probabilities(lambda x: reading.select(nn.Module(), (), network(x)), images, rows)
    else:
        _refuse_others(rows, outputs)
    if reading.columns == 1:
        reading = replace(reading, notes=(*reading.notes, f"returns one number an image: {_OF_TWO[reading.outputs]}"))
    return reading


def _called(
    network: Callable[[Tensor], Any], images: Tensor, names: int | None
) -> tuple[Any, int, int | None, list[Any]]:
    """What :func:`find_tensor` takes: what the network returns and, of several tensors, what its layers gave."""
    returned, given = network(images), list[Any]()
    if not isinstance(returned, Tensor) and isinstance(network, nn.Module):
        heads = dict(enumerate(module for module in network.modules() if isinstance(module, _HEADS)))
        with hooked(heads, leave=lambda _, call: given.append(call.output) if fits(call.output, len(images)) else None):
            returned = network(images)
    return returned, len(images), names, given


def _refuse_probabilities(call: Callable[[Tensor], Tensor], images: Tensor, rows: Tensor) -> None:
    """Refuse what a softmax or sigmoid has made of logits already.

    The sums of several rows tell; of numbers that only lie in [0, 1], the operation that made them, or that far
    stronger inputs bring them to both ends and no further.
    """
    kind = _sums(rows)
    if kind is None and (_within(rows, 0, 1) or bool((rows <= 0).all())):
        kind = _MADE.get(_last_operation(lambda: call(images)) or "")
        if kind is None and _within(rows, 0, 1):
            driven = torch.cat([rows, *(call(factor * images) for factor in _DRIVEN)])
            saturates = _within(driven, 0, 1) and float(driven.max() - driven.min()) > _SPAN
            kind = "probabilities" if saturates else None
    if kind is None:
        return
    if rows.shape[1] > 1 and _sums(rows) is None:
        raise UsageError(
            f"returns {kind} that do not sum to 1, as of labels that an image may have several of: regrad scores "
            "networks that choose one of C classes; if this one does, return its logits, before the sigmoid"
        )
    raise UsageError(
        f"returns {kind} already: return logits (leave its last softmax or sigmoid out), or say outputs={kind} "
        f"(--outputs {kind})"
    )


def _refuse_others(rows: Tensor, outputs: str) -> None:
    """Refuse numbers that are not the ``outputs`` that the user says they are."""
    if outputs == "logits":
        return
    fits = _within(rows, 0, 1) if outputs == "probabilities" else bool((rows <= _rounding(rows)).all())
    if rows.shape[1] > 1:
        fits = _sums(rows) == outputs
    if not fits:
        raise UsageError(
            f"outputs {outputs}: but it returns numbers from {float(rows.min()):.3g} to {float(rows.max()):.3g}"
            + ("" if rows.shape[1] == 1 else f", whose rows are no {outputs} of {rows.shape[1]} classes")
        )


def _sums(rows: Tensor) -> str | None:
    """What rows of several classes are, by their sums."""
    rounding, values = _rounding(rows), rows.double()
    if rows.shape[1] == 1:
        return None
    if bool((values >= -rounding).all()) and bool(((values.sum(1) - 1).abs() <= rounding).all()):
        return "probabilities"
    return "log-probabilities" if bool((values.logsumexp(1).abs() <= rounding).all()) else None


def _close(a: Tensor, b: Tensor) -> bool:
    return bool(((a - b).abs() <= 10 * _rounding(b) * b.abs().max()).all())


def _within(rows: Tensor, low: float, high: float) -> bool:
    return bool(((rows >= low) & (rows <= high)).all())


def _rounding(rows: Tensor) -> float:
    return _ROUNDING.get(rows.dtype, 5e-2)


def _last_operation(call: Callable[[], Tensor]) -> str | None:
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


class _Recording(Operations):
    """Notes what each operation made, and what of."""

    def __init__(self) -> None:
        super().__init__()
        self.made: deque[tuple[str, Tensor | None, Tensor]] = deque(maxlen=_OPERATIONS)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        source = next((item for item in tree_leaves(args) if isinstance(item, Tensor)), None)
        name = func.overloadpacket.__name__
        self.made.extend((name, source, item) for item in tree_leaves(result) if isinstance(item, Tensor))
        return result
