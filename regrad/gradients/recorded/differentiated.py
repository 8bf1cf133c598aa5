"""What backward passes have brought, and the squared norms of every layer that follow, of several targets at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from regrad.gradients.depths import Order
from regrad.gradients.norms import norms_of_runs
from regrad.gradients.recorded.recording import Recording
from regrad.gradients.recorded.uses import Addends, Sums, stacked


@dataclass(frozen=True)
class Differentiated:
    """What a backward pass for one target has brought.

    Attributes:
        names: of the parameters that it was for.
        outputs: gradients of the outputs of watched modules, by their place in the recording.
        plain: gradients of the parameters that have no rule, by their names.
    """

    names: Collection[str]
    outputs: Mapping[int, Tensor | None]
    plain: Mapping[str, Tensor | None]


Derivative = Callable[[Tensor], Differentiated]  # of a cotangent of the logits


class Squares:
    """||block of J^T v||^2 of every layer.

    Args:
        recording: of the forward pass, prepared.
        place: of each parameter's layer among all.
        layers: the index of each layer.
        device: of the gradients.
    """

    def __init__(self, recording: Recording, place: Mapping[str, int], layers: Sequence[int], device: torch.device):
        self._recording = recording
        self._place = place
        self._layers = layers
        self._sums = Sums(len(layers), device)
        self._device = device

    def of_one(self, derivative: Derivative, cotangent: Tensor) -> Tensor:
        """Of one target, float64 (B, layers), 0 where nothing was differentiated."""
        return self([derivative(cotangent)])[0]

    def __call__(self, targets: Sequence[Differentiated], first: Tensor | None = None) -> Tensor:
        """Of several, (T, B, layers).

        Args:
            targets: what has been differentiated for each.
            first: which layer is the first that counts, for each target and image, (T, B); None: all count. Others may
                be left at 0.
        """

        def wanted(names: Collection[str]) -> Tensor:
            assert first is not None
            return first <= max(self._layers[self._place[name]] for name in names)

        addends = self._recording.addends(
            [each.outputs for each in targets], [each.names for each in targets], None if first is None else wanted
        )
        for name in dict.fromkeys(name for each in targets for name in each.plain):
            gradients = [each.plain.get(name) for each in targets]
            there = [k for k, gradient in enumerate(gradients) if gradient is not None]
            if there:  # of the one image that there is
                numbers = stacked([norms_of_runs(gradients[k].reshape(1, -1)) for k in there])  # type: ignore[union-attr]
                addends[name] = Addends(numbers, to_square=True).spread(there, len(targets))
        if not addends:
            size = (len(targets), self._recording.images, len(self._layers))
            return torch.zeros(size, dtype=torch.float64, device=self._device)
        return self._sums([(self._place[name], each) for name, each in addends.items()])


class Waiting:
    """Targets that have been differentiated one after another, and whose norms are formed together.

    Args:
        squares: forms them.
        order: of the classes.
        per_layer: where they are put, (layers, B, T).
        most: how many wait at the most.
    """

    def __init__(self, squares: Squares, order: Order, per_layer: Tensor, most: int) -> None:
        self._squares = squares
        self._first = order.first_layers(per_layer.shape[2])
        self._per_layer = per_layer
        self._most = most
        self._places: list[int] = []
        self._targets: list[Differentiated] = []

    def add(self, place: int, target: Differentiated) -> None:
        """One more, at this place of the order or behind it."""
        self._places.append(place)
        self._targets.append(target)
        if len(self._places) == self._most:
            self.form()

    def form(self) -> None:
        """What waits, if anything does."""
        if self._places:
            first = None if self._first is None else self._first[:, self._places].T
            self._per_layer[:, :, self._places] = self._squares(self._targets, first).permute(2, 1, 0)
        self._places, self._targets = [], []
