"""A checkpoint's names brought to a network's: containers, wrappers and prefixes are all parts of a dotted name.

Of a name in the file, what is left behind a prefix has to be a name of the network. The prefix that makes most names
fit is the one: ``state_dict.model.`` of a LightningModule, ``ema.module.`` of an averaged one, or none.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from regrad import storage
from regrad.errors import UsageError
from regrad.models.checkpoints import Stored

Shape = tuple[int, ...] | None  # None: what is not made yet, or no tensor
Shapes = dict[str, Shape]

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}  # anywhere in a name
_AVERAGED = re.compile(r"ema(?![a-z])|averag|shadow|swa|teacher|momentum|target|polyak", re.IGNORECASE)
#: Names that say nothing of the function in eval mode: counters, a profiler's, indices that are computed anew.
_HARMLESS = {
    *("num_batches_tracked", "n_averaged", "total_ops", "total_params"),
    *("relative_position_index", "relative_coords_table", "attn_mask", "position_ids"),
}
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.", "aux_logits.")
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.")
_SHOWN = 3


@dataclass
class Fitted:
    """A checkpoint under a network's names.

    Attributes:
        state: for ``load_state_dict``, with its metadata.
        names: the file's own name of each entry.
        notes: what was assumed or left out, a line each.
    """

    state: OrderedDict[str, Any]
    names: dict[str, str]
    notes: list[str] = field(default_factory=list)

    @property
    def shapes(self) -> Shapes:
        """The shape of each tensor."""
        return shapes_of(self.state)


def shapes_of(state: Mapping[str, Any]) -> Shapes:
    """The shape of each entry of a state dict."""
    lazy = (UninitializedParameter, UninitializedBuffer)
    return {
        name: tuple(value.shape) if isinstance(value, Tensor) and not isinstance(value, lazy) else None
        for name, value in state.items()
    }


def fit_names(stored: Stored, own: Shapes, modules: Iterable[str] = ()) -> Fitted:
    """The entries of ``stored`` under the names of a network.

    Args:
        own: the network's names, with their shapes.
        modules: the names of all its modules, for the metadata.
    """
    there, wanted = _unwrapped(stored.values), _unwrapped(own)
    candidates = _candidates(there, wanted, shapes_of(stored.values), own)
    best = candidates[0] if candidates else _Candidate("", "", 0, 0)
    targets = {name[len(best.inside) :]: key for name, key in wanted.items() if name.startswith(best.inside)}
    under = {name[len(best.prefix) :]: key for name, key in there.items() if name.startswith(best.prefix)}
    folders = {stored.folders[key] for rest, key in under.items() if rest in targets} or set(stored.folders.values())
    names = {
        targets.get(rest, best.inside + rest): key
        for rest, key in under.items()
        if rest in targets or (stored.folders[key] in folders and isinstance(stored.values[key], Tensor))
    }
    state = OrderedDict((name, stored.values[key]) for name, key in names.items())
    state._metadata = _metadata(stored, best, modules)  # type: ignore[attr-defined]
    return Fitted(state, names, _notes(stored, folders, set(names.values()), candidates))


@dataclass(frozen=True)
class _Candidate:
    """``prefix`` of the file's names stands for ``inside`` of the network's: so many names and shapes are alike."""

    prefix: str
    inside: str
    names: int
    shapes: int


def _candidates(there: Mapping[str, str], wanted: Mapping[str, str], shapes: Shapes, own: Shapes) -> list[_Candidate]:
    """What the names may be brought together by, the best first."""
    candidates = []
    for inside in _common(wanted):
        targets = {name[len(inside) :]: key for name, key in wanted.items()}
        alike, same = Counter[str](), Counter[str]()
        for name, key in there.items():
            for prefix, rest in _splits(name):
                if rest in targets:
                    alike[prefix] += 1
                    same[prefix] += shapes[key] == own[targets[rest]]
        candidates += [_Candidate(prefix, inside, count, same[prefix]) for prefix, count in alike.items()]
    order = {candidate: place for place, candidate in enumerate(candidates)}
    return sorted(
        candidates,
        key=lambda item: (
            -(item.names + item.shapes),
            bool(_AVERAGED.search(item.prefix)),
            item.prefix.count(".") + item.inside.count("."),
            order[item],
        ),
    )


def _common(names: Iterable[str]) -> list[str]:
    """The prefixes that all ``names`` have, the empty one first: what may be missing in a file.

    >>> _common(["net.a.weight", "net.b.weight"])
    ['', 'net.']
    """
    prefixes, names = [""], list(names)
    while names:
        first, _, rest = names[0][len(prefixes[-1]) :].partition(".")
        longer = f"{prefixes[-1]}{first}."
        if not rest or not all(name.startswith(longer) for name in names):
            break
        prefixes.append(longer)
    return prefixes


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """Every prefix of a dotted name with what is left."""
    place = 0
    while True:
        yield name[:place], name[place:]
        place = name.find(".", place) + 1
        if not place:
            return


def _unwrapped(names: Iterable[str]) -> dict[str, str]:
    """The ``names`` by what they are without the parts that wrappers add; with them, where two would be the same."""
    names = list(names)
    without = {".".join(part for part in name.split(".") if part not in _WRAPPERS): name for name in names}
    return without if len(without) == len(names) else {name: name for name in names}


def _metadata(stored: Stored, best: _Candidate, modules: Iterable[str]) -> dict[str, Any]:
    """The file's metadata by the network's modules; empty where it has none."""
    own = _unwrapped(filter(None, modules))
    by_module: dict[str, Any] = {}
    for name, told in stored.metadata.items():
        bare = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
        if f"{bare}.".startswith(best.prefix):
            rest = best.inside + bare[len(best.prefix) :]
            by_module.setdefault(own.get(rest, rest.removesuffix(".")), told)
    return by_module


def _notes(stored: Stored, folders: set[str], used: set[str], candidates: list[_Candidate]) -> list[str]:
    """What else is in the file that a reader of the scores should know of."""
    best = candidates[0] if candidates else _Candidate("", "", 0, 0)
    others = [item.prefix for item in candidates[1:] if item.shapes == best.shapes and item.inside == best.inside]
    if others and best.shapes:
        sets = ", ".join(map(_called, (best.prefix, *others[:_SHOWN])))
        return [f"{stored.what} has several sets that fit, {sets}: {_called(best.prefix)} is taken"]
    left = [
        key for key in stored.tensors if key not in used and stored.folders[key] in folders and not _is_harmless(key)
    ]
    return [f"{stored.what}: left out, since it is not the network's: {some(left)}"] if left else []


def _called(prefix: str) -> str:
    return prefix.removesuffix(".") or "what has no prefix"


def _is_harmless(name: str) -> bool:
    return name.rpartition(".")[2] in _HARMLESS


def load(network: nn.Module, stored: Stored, spec: str) -> list[str]:
    """Fill ``network`` with ``stored``; returns what was assumed, a line each.

    Raises:
        UsageError: it does not fit; the first names on both sides, and what would make it fit.
    """
    own = shapes_of(network.state_dict())
    fitted = fit_names(stored, own, [name for name, _ in network.named_modules()])
    put(network, fitted, stored, spec)
    return fitted.notes


def put(network: nn.Module, fitted: Fitted, stored: Stored, spec: str, partly: bool = False) -> list[str]:
    """``network.load_state_dict`` of what was fitted; ``partly`` lets it leave some of the network as it is.

    Returns:
        The names that the file did not have.

    Raises:
        UsageError: it does not fit.
    """
    own, there = shapes_of(network.state_dict()), fitted.shapes
    state = fitted.state
    if not state._metadata:  # type: ignore[attr-defined]  # safetensors has none: as the installed versions write it
        state._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    shapes = [
        f"{name} {there[name]} instead of {own[name]}"
        for name in own
        if name in state and None not in (own[name], there[name]) and there[name] != own[name]
    ]
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except Exception as error:  # shapes, or a module with a loader of its own
        missing, unexpected = [name for name in own if name not in state], [name for name in state if name not in own]
        if not shapes:
            raise UsageError(f"weights do not fit: {stored.what} into {spec}: {storage.reason(error)}") from error
    missing = [name for name in missing if not _is_harmless(name)]
    unexpected = sorted(name for name in unexpected if not _is_harmless(name) and not name.startswith(_AUXILIARY))
    problems = [
        f"{label} {some(names)}"
        for label, names in (
            ("missing", [] if partly else missing),
            ("unexpected", [fitted.names[name] for name in unexpected]),
            ("shape", shapes),
        )
        if names
    ]
    if problems:
        hint = _remedy(stored, fitted, own, missing, unexpected, shapes)
        raise UsageError(f"weights do not fit: {stored.what} into {spec}: {'; '.join(problems)}{hint}")
    return missing


def _remedy(
    stored: Stored, fitted: Fitted, own: Shapes, missing: list[str], unexpected: list[str], shapes: list[str]
) -> str:
    """What would make it fit."""
    shard = _SHARD.search(stored.what)
    if missing and shard:
        return f"; it is one of {int(shard[1])} shards: give their index file instead"
    if not set(own) & set(fitted.state):
        return "; no name is in both: are they of one architecture?"
    if shapes and (missing or unexpected):
        return "; are they of one architecture?"
    for name in missing:
        module, _, leaf = name.rpartition(".")
        behind = next((key for key in unexpected if re.fullmatch(rf"{re.escape(module)}\.\d+\.{leaf}", key)), None)
        if behind:
            return f"; the file's {module} is a sequence with {behind}: return a network with that from a factory"
    there = fitted.shapes
    different = [name for name in own if there.get(name) not in (None, own[name])]
    pairs = [(there[name] or (), own[name] or ()) for name in different]
    if shapes and not missing and not unexpected:
        if all(file[1:] == network[1:] for file, network in pairs):
            classes = f"{pairs[-1][0][0]} classes in the file and {pairs[-1][1][0]} in the network"
            return f"; {different[-1].rpartition('.')[0]} has {classes}: build it with as many"
        if len(pairs) == 1 and [len(shape) for shape in pairs[0]] == [4, 4]:
            return f"; {different[0].rpartition('.')[0]} takes {pairs[0][0][1]} channels in the file: build it so"
    return "; a factory that builds the network as it was saved makes it fit"


def some(names: Iterable[str]) -> str:
    """The first of ``names``, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
