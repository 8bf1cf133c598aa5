"""Where the logits are in what a network returns: a tensor, or a dict, tuple or object that holds one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from regrad.errors import UsageError

Place = tuple[str | int, ...]

_NAMES = ("logits", "out")  # what classifiers call them: transformers, torchvision
_DEPTH = 3
_SHOWN = 6


@dataclass(frozen=True)
class Found:
    """The tensor with the logits, as (images, columns), and where it was.

    ``shape`` is its own, ``notes`` what was assumed to find it.
    """

    place: Place
    rows: Tensor
    shape: tuple[int, ...]
    notes: tuple[str, ...] = ()


def at(returned: Any, place: Place) -> Any:
    """What stands at ``place`` of what a network returned."""
    for step in place:
        returned = returned[step] if isinstance(returned, Mapping) or isinstance(step, int) else getattr(returned, step)
    return returned


def find_tensor(returned: Any, images: int, names: int | None = None, given: Sequence[Any] = ()) -> Found:
    """The logits in what a network returned for ``images`` images: what is called so, else what has their shape.

    Args:
        names: how many class names there are; of several tensors it tells which.
        given: what its layers that may be a head gave on the way: features, which are returned as well, are none of it.

    Raises:
        UsageError: none fits, or it cannot be told which; without the network's name.
    """
    if isinstance(returned, Tensor):
        return _found((), returned, images)
    tensors = dict(_tensors(returned))
    named = [place for name in _NAMES for place in sorted(tensors, key=len) if place[-1] == name]
    if named:
        return _found(named[0], tensors[named[0]], images)
    fitting = [place for place, tensor in tensors.items() if _misfit(tensor, images) is None]
    if len(fitting) > 1 and names:
        fitting = [place for place in fitting if tensors[place].numel() == images * names] or fitting
    if len(fitting) > 1:
        fitting = [place for place in fitting if any(_is_of(tensors[place], each) for each in given)] or fitting
    what = _described(returned, tensors)
    if not fitting:
        raise UsageError(f"returns {what} for {images} images, not logits of shape ({images}, C)")
    if len(fitting) > 1 and not isinstance(fitting[0][0], int):
        words = ", ".join(map(_word, fitting))
        raise UsageError(f"returns {what}: which of {words} are the logits? Return them alone, or call them logits")
    note = f"returns {what}: {_word(fitting[0])} is taken for the logits"
    return _found(fitting[0], tensors[fitting[0]], images, (note,))


def _found(place: Place, tensor: Tensor, images: int, notes: tuple[str, ...] = ()) -> Found:
    misfit = _misfit(tensor, images)
    if misfit:
        where = f" as {_word(place)}" if place else ""
        raise UsageError(
            f"returns {_shape(tensor)}{where} for {images} images, not logits of shape ({images}, C): {misfit}"
        )
    return Found(place, tensor.reshape(images, -1), tuple(tensor.shape), notes)


def fits(value: Any, images: int) -> bool:
    """Whether ``value`` can be the logits of so many images."""
    return isinstance(value, Tensor) and _misfit(value, images) is None


def _is_of(tensor: Tensor, given: Any) -> bool:
    """Whether they are the same numbers, in another shape perhaps."""
    return isinstance(given, Tensor) and (tensor.data_ptr(), tensor.numel()) == (given.data_ptr(), given.numel())


def _misfit(tensor: Tensor, images: int) -> str | None:
    """Why ``tensor`` cannot be logits; None if it can."""
    if not tensor.is_floating_point():
        return f"its numbers are {str(tensor.dtype).removeprefix('torch.')}, no logits; is there an argmax in it?"
    if tensor.dim() == 0 or len(tensor) != images:
        return "the images of a batch cannot be told apart in it; keep the first dimension"
    if tensor.numel() == 0:
        return "there are no classes"
    if sum(side > 1 for side in tensor.shape[1:]) > 1:
        return "these are numbers for every place of an image, as of a segmentation; return one row of C an image"
    return None


def _tensors(value: Any, place: Place = ()) -> Iterator[tuple[Place, Tensor]]:
    if isinstance(value, Tensor):
        yield place, value
    elif len(place) < _DEPTH:
        for step, part in _parts(value):
            yield from _tensors(part, (*place, step))


def _parts(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, Mapping):
        yield from ((key, part) for key, part in value.items() if isinstance(key, str | int))
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):  # such as those of torchvision's GoogLeNet
        yield from value._asdict().items()
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        yield from enumerate(value)
    elif hasattr(value, "__dict__"):
        yield from vars(value).items()


def _described(returned: Any, tensors: Mapping[Place, Tensor]) -> str:
    shown = [f"{_word(place)} {_shape(tensor)}" for place, tensor in tensors.items()]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return f"{type(returned).__name__}" + (f" of {', '.join(shown[:_SHOWN])}{more}" if shown else " without a tensor")


def _word(place: Place) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
