"""Layer rules tried on a network before they are relied upon."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from regrad.errors import UsageError
from regrad.gradients.norms import squared_norm
from regrad.gradients.recorded.recording import Recording, Watched
from regrad.gradients.recorded.uses import Sums, Use
from regrad.network.copies import plain_attention
from regrad.network.hooks import Call, hooked, pulled_back, requiring_grad
from regrad.network.memory import out_of_memory
from regrad.storage.redact import reason

IMAGES = 2  # tried together: a rule that mixes images would show
TRIED = 3  # targets, at once and one after another
_IN_A_LOOP = "not yet implemented the batching rule"
NOTHING = 1e-11  # of all squared norms: what a gradient that is zero, as of a key's bias in attention, is by rounding


def trusted(
    network: nn.Module, parameters: Mapping[str, nn.Parameter], watched: Sequence[Watched], probe: Tensor
) -> list[Watched]:
    """``watched`` with the parameters alone whose rule gives the norms that autograd gives, for every input.

    A rule that is wrong or raises is not relied upon, nor what no rule can see: a weight that is used once more by a
    function, a module that changes its input, a layer that is run again in the backward pass. What is left to autograd
    changes the graph for the others, so that all is tried until nothing more has to be left.

    Args:
        network: a private copy.
        parameters: all that count, by name.
        watched: the modules that have a rule, and their parameters.
        probe: two or more inputs (B, channels, H, W).

    Raises:
        UsageError: autograd cannot differentiate the network.
    """
    probe = probe[:IMAGES]
    truth = _autograd(network, parameters, probe)
    while watched:
        ruled = {name for item in watched for name in item.parameters.values()}
        plain = [parameter for name, parameter in parameters.items() if name not in ruled]
        failed = _failing(network, watched, plain, truth, probe)
        if not failed:
            break
        rest = (item.without(failed) for item in watched)
        watched = [item for item in rest if item.parameters]
    return list(watched)


def _autograd(network: nn.Module, parameters: Mapping[str, nn.Parameter], probe: Tensor) -> dict[str, list[float]]:
    """||d(v f(x)) / d theta||^2 with a fixed v, of every parameter for each input by itself."""
    squares: dict[str, list[float]] = {name: [] for name in parameters}
    try:
        with requiring_grad(parameters.values()), torch.enable_grad(), plain_attention():
            for image in probe:
                logits = network(image[None])
                gradients = pulled_back(_cotangent(logits), logits, list(parameters.values()))
                for name, gradient in zip(parameters, gradients, strict=True):
                    squares[name].append(float(squared_norm(gradient)))
    except Exception as error:
        if out_of_memory(error):
            raise
        raise UsageError(
            f"autograd cannot differentiate {type(network).__name__}: {reason(error)}; scores of predictions alone "
            "(entropy, energy, ...) need no gradients"
        ) from error
    return squares


def _failing(
    network: nn.Module,
    watched: Sequence[Watched],
    plain: list[nn.Parameter],
    truth: Mapping[str, list[float]],
    probe: Tensor,
) -> set[str]:
    """Names of the parameters whose rule raises or disagrees, where ``plain`` is autograd's part."""
    recording = Recording(len(probe))
    gradients: list[Tensor | None] = []
    raised: set[str] = set()

    def note(i: int, call: Call) -> Tensor | None:
        output = _attempt(partial(recording.note, watched[i], call))
        if output is None:
            raised.update(watched[i].parameters.values())
        return output

    def differentiate() -> int:
        with hooked({i: item.module for i, item in enumerate(watched)}, leave=note):
            logits = network(probe)
        if logits.requires_grad:
            inputs: list[Any] = [*recording.edges, *plain]
            gradients.extend(pulled_back(_cotangent(logits), logits, inputs))
        return logits.shape[1]

    everything = {name for item in watched for name in item.parameters.values()}
    with requiring_grad(plain), torch.enable_grad(), plain_attention():
        classes = _attempt(differentiate)
    if classes is None or raised:
        return raised or everything
    total = [sum(squares) for squares in zip(*truth.values(), strict=True)]
    failed = set()
    for name in everything:
        use = recording.uses.get(name)
        if use is None or not gradients:
            squares = [0.0] * len(probe)
        else:
            squares = _attempt(partial(_norms, use, classes, gradients, probe))
        if squares is None or not all(map(agree, squares, truth[name], total)):
            failed.add(name)
    return failed


def _norms(use: Use, classes: int, gradients: Sequence[Tensor | None], probe: Tensor) -> list[float]:
    use.prepare(classes)
    taken = use.take([dict(enumerate(gradients))])
    if not taken:
        return [0.0] * len(probe)
    return Sums(1, probe.device)([(0, addends) for addends in taken.values()])[0, :, 0].tolist()


def _attempt(call: Callable[[], Any]) -> Any:
    """What ``call`` returns; None if it raises: it was tried on a layer that may be quite another one."""
    try:
        return call()
    except Exception as error:
        if out_of_memory(error):
            raise
        return None


def apart(one: Callable[[Tensor], Tensor], together: Callable[[Tensor], Tensor], logits: Tensor) -> str:
    """Why ``one`` has to be called for each cotangent of ``logits`` by itself; nothing if ``together`` does for many.

    What has no batching rule PyTorch may run in a loop, with a warning: nothing is gained by that.
    """
    cotangents = torch.stack([_cotangent(logits).roll(places, 1) for places in range(TRIED)])
    alone = torch.stack([one(cotangent) for cotangent in cotangents])
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            at_once = together(cotangents)
    except Exception as error:
        if out_of_memory(error):
            raise
        return reason(error)
    loops = [str(warning.message) for warning in said if _IN_A_LOOP in str(warning.message)]
    if loops:
        return "PyTorch has " + loops[0].partition("implemented ")[2].partition(".")[0].replace("the", "no", 1)
    pairs = zip(at_once.flatten().tolist(), alone.flatten().tolist(), strict=True)
    total = float(alone.sum())
    return "" if all(agree(*pair, total) for pair in pairs) else "several at once give other numbers"


def agree(squared: float, wanted: float, total: float) -> bool:
    """Whether they are two roundings of one number; where it is zero but for rounding, of zero."""
    larger = max(wanted, squared)
    return abs(squared - wanted) <= 1e-3 * larger or larger <= NOTHING * total


def all_agree(squares: Sequence[float], wanted: Sequence[float]) -> bool:
    """Whether all of them do."""
    total = sum(wanted)
    return all(agree(one, other, total) for one, other in zip(squares, wanted, strict=True))


def some_distributions(log_p: Tensor) -> Tensor:
    """Target distributions to try, (B, TRIED, C), of log-probabilities (B, C)."""
    steps = torch.linspace(0, 2, log_p.shape[1], dtype=log_p.dtype, device=log_p.device).softmax(0)
    return torch.stack([steps.roll(places) for places in range(TRIED)]).expand(len(log_p), -1, -1)


def _cotangent(logits: Tensor) -> Tensor:
    return torch.linspace(-1, 1, logits.shape[1], dtype=logits.dtype, device=logits.device).expand_as(logits)
