"""How a network is called: images by place or name, images it writes into, and what it keeps between calls."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regrad.errors import UsageError
from regrad.scorer import Scorer
from tests.models.test_outputs import IDS, Changed, ModelOutput, X, classifier, net


class ByKeyword(nn.Module):
    """As transformers' models that take more than images: no place for them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def forward(self, input_ids: Any = None, *, pixel_values: Any = None, **others: Any) -> Any:
        return ModelOutput(logits=self.inner(pixel_values))


class TwoInputs(nn.Module):
    """Takes a mask too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.inner(x)


def test_images_go_to_pixel_values_by_name_where_they_have_no_place() -> None:
    found = classifier(ByKeyword())
    torch.testing.assert_close(found.network(X), net()(X))
    Scorer(found, ["regrad"], samples=1)(torch.rand(2, 1, 6, 8), IDS[:2])
    with pytest.raises(UsageError, match="wants mask besides the images: wrap it"):
        classifier(TwoInputs())


class InPlace(nn.Module):
    """Normalises the images it is given in their own memory."""

    def __init__(self, own: bool):
        super().__init__()
        self.net, self.own = net(), own

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone() if self.own else x
        return self.net(x.sub_(0.25).div_(0.5))


@pytest.mark.parametrize("engine", ["exact", "reference"])
def test_a_network_that_changes_its_images_is_given_copies(engine: str) -> None:
    kept = X.clone()
    wanted, found = (
        Scorer(classifier(InPlace(own)), ("regrad",), samples=2, engine=engine)(X, IDS)["regrad"]
        for own in (True, False)
    )
    assert torch.equal(X, kept)
    assert torch.equal(found, wanted)


class AnyPlaces(nn.Module):
    """Hands on whatever it is given, as wrappers do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def forward(self, *inputs: Any, **others: Any) -> Any:
        assert not others
        return self.inner(*inputs)


def test_a_network_that_takes_images_and_returns_logits_is_left_as_it_is() -> None:
    for network in (net(), Changed(lambda z: z), AnyPlaces()):
        assert classifier(network).network is network


def test_the_callers_network_is_never_changed() -> None:
    network = ByKeyword()
    classifier(network)
    classifier(Changed(lambda z: z, 1))
    assert not network._forward_hooks
    assert not network._forward_pre_hooks
    assert isinstance(network(pixel_values=X), ModelOutput)


class Caching(nn.Module):
    """Adds to the logits what it makes of a parameter once, and keeps, as timm's LeViT, TinyViT and EfficientFormer."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.inner, self.bias, self.place = net(), nn.Parameter(torch.linspace(-1, 1, 5)), place
        self.by_device: dict[str, Tensor] = {}
        self.ready: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.made()

    def made(self) -> Tensor:
        """The parameter, changed, from where it is kept."""
        match self.place:
            case "dict":
                if "cpu" not in self.by_device:
                    self.by_device["cpu"] = self.bias.exp()
                return self.by_device["cpu"]
            case "attribute":
                if self.ready is None:
                    self.ready = self.bias.exp()
                return self.ready
            case "new attribute":
                if not hasattr(self, "late"):
                    self.late = self.bias.exp()
                return self.late
        return self.bias.exp()


@pytest.mark.parametrize("engine", ["exact", "reference"])
@pytest.mark.parametrize(
    ("place", "called"),
    [("dict", False), ("dict", True), ("attribute", False), ("attribute", True), ("new attribute", False)],
)
def test_what_a_network_keeps_of_its_parameters_is_made_anew(place: str, called: bool, engine: str) -> None:
    network = Caching(place)
    if called:
        network(X)  # by its owner, with a graph that is used up
    scores = ("regrad", "perturb_theta")
    found, wanted = (
        Scorer(classifier(each), scores, samples=2, draws=2, engine=engine)(X, IDS)
        for each in (network, Caching("nowhere"))
    )
    for name in scores:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-5, atol=0)


def test_nothing_with_a_graph_is_left_in_a_network() -> None:
    found = classifier(Caching("dict"))
    with torch.enable_grad():
        assert found.network(X).grad_fn is not None
    again = copy.deepcopy(found.network)  # which torch refuses where a tensor has a graph
    with torch.no_grad():
        again.bias.zero_()
        torch.testing.assert_close(again(X), net()(X) + 1)


def test_what_is_kept_and_made_of_no_parameter_stays() -> None:
    class Grid(Caching):
        def made(self) -> Tensor:
            if self.ready is None:
                self.ready = torch.arange(5.0)
            return self.ready

    network = Grid("nowhere")
    assert classifier(network).network is network
    assert network.ready is not None


def test_a_network_that_is_called_without_gradients_alone_has_its_predictions_scored() -> None:
    class ByNumPy(Changed):
        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(self.inner(x).numpy())

    found = classifier(ByNumPy(lambda z: z))
    wanted = Scorer(classifier(net()), ("entropy",))(X, IDS)["entropy"]
    torch.testing.assert_close(Scorer(found, ("entropy",))(X, IDS)["entropy"], wanted)
    with pytest.raises(UsageError, match="numpy"):
        Scorer(found, ("regrad",))
