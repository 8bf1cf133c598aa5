"""What networks return: found, read as logits, or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrad.classifier import Classifier
from regrad.errors import UsageError
from regrad.gradients.layers import find_layers
from regrad.scorer import Scorer


def net(classes: int = 5, scale: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    last = nn.Linear(24, classes)
    with torch.no_grad():
        last.weight *= scale
    return nn.Sequential(nn.Conv2d(1, 6, 3, stride=3), nn.Tanh(), nn.Flatten(), last).eval()


class Changed(nn.Module):
    """Returns ``change`` of the logits."""

    def __init__(self, change: Callable[[Tensor], Any], classes: int = 5, scale: float = 1.0) -> None:
        super().__init__()
        self.inner, self.change = net(classes, scale), change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.inner(x))


class ModelOutput(dict):  # type: ignore[type-arg]
    """As transformers': attributes are keys, and what is none raises what a dict raises."""

    __getattr__ = dict.__getitem__


def classifier(network: nn.Module, **settings: Any) -> Classifier:
    return Classifier(network, (6, 8), channels=1, mean=0.5, std=0.25, **settings)


X = torch.rand(7, 1, 6, 8, generator=torch.Generator().manual_seed(1)) * 4 - 2
IDS = [f"image-{i}" for i in range(len(X))]


def test_scores_are_those_of_the_network_itself_layer_by_layer() -> None:
    settings: dict[str, Any] = {"scores": ["regrad", "exgrad"], "samples": 2, "tolerance": 0, "engine": "exact"}
    plain = Scorer(classifier(net()), **settings)
    held = Scorer(classifier(Changed(lambda z: ModelOutput(logits=z)).inner), **settings)
    wrapped = Changed(lambda z: ModelOutput(logits=z))
    for layers in ("modules", "stages"):
        mine = Scorer(classifier(wrapped), **settings, layers=layers)
        assert mine.plan["engine"] == "exact"
    images = torch.rand(4, 1, 6, 8)
    for name in ("regrad", "exgrad"):
        torch.testing.assert_close(plain(images, IDS[:4])[name], held(images, IDS[:4])[name])
    found = find_layers(classifier(wrapped).network, X, "modules")
    assert [layer.name for layer in found] == ["inner.0", "inner.3"]


@pytest.mark.parametrize(
    "change", [lambda z: z, lambda z: z.squeeze(1), lambda z: z.squeeze(), lambda z: {"logits": z}]
)
def test_one_logit_is_that_of_the_second_of_two_classes(change: Callable[[Tensor], Any]) -> None:
    found = classifier(Changed(change, 1))
    assert found.num_classes == 2
    assert "one number an image: taken for the logit of class 1 of two, p = sigmoid(z)" in found.notes[0]
    z = net(1)(X)
    torch.testing.assert_close(found.network(X).softmax(1), torch.cat([1 - z.sigmoid(), z.sigmoid()], 1))
    torch.testing.assert_close(found.network(X[:1]).softmax(1)[:, 1:], z[:1].sigmoid())


@pytest.mark.parametrize("engine", ["exact", "sketch", "reference"])
def test_the_gradients_of_one_logit_are_those_of_the_networks_own_parameters(engine: str) -> None:
    network = net(1, scale=4.0)
    settings: dict[str, Any] = {"engine": engine, "tolerance": 0, "samples": 0, "depth_decay": 0, "directions": 4096}
    images = torch.rand(3, 1, 6, 8)
    found = Scorer(classifier(network), ["regrad", "entropy"], **settings)(images, IDS[:3])
    for image, score, entropy in zip((images - 0.5) / 0.25, found["regrad"], found["entropy"], strict=True):
        wanted = 0.0
        z = network(image[None])[0, 0]
        for log_p in (F.logsigmoid(-z), F.logsigmoid(z)):
            gradients = torch.autograd.grad(log_p, list(network.parameters()), retain_graph=True)
            norm = sum(float(gradient.double().square().sum()) for gradient in gradients) ** 0.5
            wanted += float(log_p.exp().sqrt()) * norm
        assert float(score) == pytest.approx(wanted, rel=0.05 if engine == "sketch" else 1e-4)
        assert float(entropy) == pytest.approx(float(F.binary_cross_entropy_with_logits(z, z.sigmoid())), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "classes", "message"),
    [
        (lambda z: z.softmax(1), 5, "returns probabilities already: return logits .* or say outputs=probabilities"),
        (lambda z: z.softmax(1), 2, "returns probabilities already"),
        (lambda z: z.exp() / z.exp().sum(1, keepdim=True), 5, "returns probabilities already"),
        (lambda z: {"logits": z.softmax(1).half()}, 5, "returns probabilities already"),
        (lambda z: z.log_softmax(1), 5, "returns log-probabilities already: .* say outputs=log-probabilities"),
        (lambda z: z.sigmoid(), 1, "returns probabilities already"),
        (lambda z: z.sigmoid().squeeze(1), 1, "returns probabilities already"),
        (lambda z: F.logsigmoid(z), 1, "returns log-probabilities already"),
        (lambda z: 1 / (1 + (-z).exp()), 1, "returns probabilities already"),
        (lambda z: (z.tanh() + 1) / 2, 1, "returns probabilities already"),
        (lambda z: z.sigmoid(), 5, "returns probabilities that do not sum to 1, as of labels that an image may have"),
        (lambda z: z.softmax(1), 1, "returns 1 for every picture, as a softmax over one class does"),
    ],
)
def test_what_is_probabilities_already_is_refused(change: Callable[[Tensor], Any], classes: int, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        classifier(Changed(change, classes, scale=10.0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("classes", [1, 2])
def test_small_logits_between_0_and_1_are_logits(classes: int) -> None:
    network = net(classes, scale=0.01)
    with torch.no_grad():
        network[3].bias.fill_(0.5)
    rows = network(X)
    assert 0 < float(rows.min()) < float(rows.max()) < 1
    torch.testing.assert_close(classifier(network).network(X).diff(dim=1), rows if classes == 1 else rows.diff(dim=1))


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("outputs", ["probabilities", "log-probabilities"])
def test_probabilities_that_the_user_says_are_some_give_the_scores_of_the_logits(outputs: str, classes: int) -> None:
    both: Mapping[tuple[str, int], Callable[[Tensor], Tensor]] = {
        ("probabilities", 5): lambda z: z.softmax(1),
        ("probabilities", 1): lambda z: z.sigmoid(),
        ("log-probabilities", 5): lambda z: z.log_softmax(1),
        ("log-probabilities", 1): lambda z: F.logsigmoid(z),
    }
    settings: dict[str, Any] = {"scores": ["regrad", "entropy"], "tolerance": 0, "samples": 1, "engine": "exact"}
    said = classifier(Changed(both[outputs, classes], classes), outputs=outputs)
    plain = classifier(Changed(lambda z: z, classes))
    assert said.num_classes == plain.num_classes
    images = torch.rand(4, 1, 6, 8)
    found, wanted = (Scorer(item, **settings)(images, IDS[:4]) for item in (said, plain))
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-6)


def test_a_probability_of_zero_gives_finite_scores() -> None:
    network = Changed(lambda z: (1000 * z).softmax(1), scale=10.0)
    said = classifier(network, outputs="probabilities")
    assert float(network(said.normalize(torch.rand(4, 1, 6, 8))).min()) == 0
    found = Scorer(said, ["regrad", "entropy"], samples=0)(torch.rand(4, 1, 6, 8), IDS[:4])
    assert all(bool(column.isfinite().all()) for column in found.values())


@pytest.mark.parametrize(
    ("change", "outputs", "message"),
    [
        (lambda z: z, "probabilities", r"outputs probabilities: but it returns numbers from -.*no probabilities of 5"),
        (lambda z: z.sigmoid(), "probabilities", "no probabilities of 5 classes"),
        (lambda z: z, "log-probabilities", "outputs log-probabilities: but it returns"),
        (lambda z: z, "scores", "outputs 'scores': one of logits, probabilities, log-probabilities"),
    ],
)
def test_what_the_user_says_is_checked(change: Callable[[Tensor], Any], outputs: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        classifier(Changed(change), outputs=outputs)


def test_probabilities_are_taken_for_logits_where_the_user_says_so() -> None:
    said = classifier(Changed(lambda z: z.softmax(1)), outputs="logits")
    torch.testing.assert_close(said.network(X), net()(X).softmax(1))


def test_the_fingerprint_knows_how_numbers_are_read() -> None:
    network = Changed(lambda z: z.softmax(1))
    prints = {classifier(network, outputs=outputs).fingerprint for outputs in ("probabilities", "logits")}
    assert len(prints) == 2
    held = Changed(lambda z: {"logits": z})
    plain = Changed(lambda z: z)
    assert classifier(held).fingerprint == classifier(plain).fingerprint
    assert classifier(plain).fingerprint == classifier(plain, outputs="logits").fingerprint


def test_a_temperature_divides_one_logit_too() -> None:
    found = classifier(net(1))
    found._divide_logits(2.0)
    torch.testing.assert_close(found.network(X).softmax(1)[:, 1:], (net(1)(X) / 2).sigmoid())


def test_one_class_name_is_that_of_the_second_of_two_classes() -> None:
    assert classifier(net(1), class_names=["defect"]).class_names == ("not defect", "defect")
    assert classifier(net(1), class_names=["sound", "defect"]).class_names == ("sound", "defect")
