"""Where logits are found in what a network returns, and what is said where there are none."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrad.errors import UsageError
from tests.models.test_outputs import Changed, ModelOutput, X, classifier, net


class InceptionOutputs(NamedTuple):
    logits: Tensor
    aux_logits: Tensor | None


@pytest.mark.parametrize(
    ("change", "noted"),
    [
        (lambda z: ModelOutput(loss=None, logits=z, hidden_states=(z.mean(), z)), False),
        (lambda z: {"logits": z, "features": z}, False),
        (lambda z: {"out": z, "aux": z.detach()}, False),
        (lambda z: InceptionOutputs(z, None), False),
        (lambda z: SimpleNamespace(logits=z), False),
        (lambda z: z[:, :, None, None], False),
        (lambda z: z.squeeze(), False),
        (lambda z: (z, z.mean()), True),
        (lambda z: [z, 2 * z], True),
        (lambda z: (z.mean(), {"a": z}), True),
        (lambda z: {"class": z, "loss": z.mean()}, True),
    ],
)
def test_logits_are_found_in_what_holds_them(change: Callable[[Tensor], Any], noted: bool) -> None:
    found = classifier(Changed(change))
    assert found.num_classes == 5
    assert bool(found.notes) == noted
    for x in (X, X[:1]):
        torch.testing.assert_close(found.network(x), net()(x))


def test_several_fitting_tensors_are_told_apart_by_the_class_names_or_refused() -> None:
    two = Changed(lambda z: {"embedding": z.repeat(1, 3), "scores": 2 * z})
    with pytest.raises(UsageError, match=r"which of embedding, scores are the logits\? Return them alone"):
        classifier(two)
    named = classifier(two, class_names=list("abcde"))
    torch.testing.assert_close(named.network(X), 2 * net()(X))
    features_first = Changed(lambda z: (z.repeat(1, 3), 2 * z))
    assert classifier(features_first).num_classes == 15
    assert "[0] is taken for the logits" in classifier(features_first).notes[0]
    assert classifier(features_first, class_names=list("abcde")).num_classes == 5


class WithFeatures(nn.Module):
    """Returns what its head is given, too."""

    def __init__(self, change: Callable[[Tensor, Tensor], Any], convolution: bool = False) -> None:
        super().__init__()
        self.stem, self.change = nn.Conv2d(1, 7, 3), change
        self.head = nn.Conv2d(7, 5, 1) if convolution else nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Any:
        features = self.stem(x).relu().mean((2, 3), keepdim=isinstance(self.head, nn.Conv2d))
        return self.change(features, self.head(features))


@pytest.mark.parametrize("convolution", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        lambda h, z: (h, z),
        lambda h, z: (h.flatten(1), z.flatten(1)),
        lambda h, z: {"embedding": h, "scores": z},
        lambda h, z: (z, h),
        lambda h, z: [h, {"loss": h.mean(), "z": z}],
    ],
)
def test_of_features_and_what_the_head_gives_the_latter_are_logits(
    change: Callable[[Tensor, Tensor], Any], convolution: bool
) -> None:
    torch.manual_seed(0)
    network = WithFeatures(change, convolution)
    found = classifier(network)
    assert found.num_classes == 5
    assert "taken for the logits" in found.notes[0]
    network.change = lambda h, z: z.flatten(1)
    torch.testing.assert_close(found.network(X), network(X))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z: z[:, :, None, None].expand(-1, -1, 6, 8), r"returns \(3, 5, 6, 8\) for 3 images.*every place"),
        (lambda z: {"out": z[:, :, None].expand(-1, -1, 6)}, r"returns \(3, 5, 6\) as out for 3 images.*every place"),
        (lambda z: z.argmax(1), "its numbers are int64, no logits; is there an argmax in it?"),
        (lambda z: z.sum(0), r"returns \(5,\) for 3 images.*cannot be told apart"),
        (lambda z: z.sum(), r"returns \(\) for 3 images"),
        (lambda z: z * torch.nan, "returns NaN or infinity for plain pictures"),
        (lambda z: z / 0, "returns NaN or infinity for plain pictures"),
        (lambda z: z[:, :0], "there are no classes"),
        (lambda z: None, "returns NoneType without a tensor"),
        (lambda z: {"loss": z.mean()}, r"returns dict of loss \(\) for 3 images, not logits of shape \(3, C\)"),
        (lambda z: F.dropout(z, 0.5, training=True), "returns other numbers each time"),
    ],
)
def test_what_holds_no_logits_of_images_is_one_line(change: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        classifier(Changed(change))
    assert "\n" not in str(caught.value)
