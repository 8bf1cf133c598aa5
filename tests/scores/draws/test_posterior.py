"""The Laplace approximation: its variance from scratch, stored and restored, and the score made of it."""

from __future__ import annotations

from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from regrad import Classifier, Scorer, UsageError
from regrad.network import memory
from regrad.network.copies import private_copy
from regrad.scores.draws import posterior
from regrad.scores.state import State, fingerprint
from tests.networks import SIZE, build, copies

IDS = ["a", "b", "c"]


def data(count: int = 40) -> tuple[Tensor, Tensor]:
    return copies(count)[:, 0], torch.randint(0, 5, (count,), generator=torch.Generator().manual_seed(0))


def fitted(name: str, structure: str = "last") -> tuple[nn.Module, State]:
    network = build(name)
    return network, posterior.fit(network, *data(), structure=structure)


@pytest.mark.parametrize("name", ["BatchNorm CNN", "torchvision ViT"])
def test_the_variance_of_the_last_layer_from_scratch(name: str) -> None:
    """S = (B x A + delta)^-1 for the weight, (B + delta)^-1 for the bias, A = mean h h^T, B = sum_n L_n."""
    network, state = fitted(name)
    head = network.get_submodule({"torchvision ViT": "heads.head"}.get(name, "fc"))
    assert isinstance(head, nn.Linear)
    seen: list[Tensor] = []
    head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        p = network(data()[0]).softmax(1)
        network(data()[0][:3])
    h, delta = seen[0], float(state["prior_precision"])
    b = torch.diag_embed(p).sum(0) - p.T @ p
    precision = torch.kron(b, h.T @ h / len(h)) + delta * torch.eye(b.shape[0] * h.shape[1], dtype=torch.float64)
    weight, bias = torch.linalg.inv(precision), torch.linalg.inv(b + delta * torch.eye(5, dtype=torch.float64))
    jacobians = torch.stack([torch.kron(torch.eye(5, dtype=torch.float64), row[None]) for row in seen[1]])
    wanted = jacobians @ weight @ jacobians.transpose(1, 2) + bias
    draws = posterior.PosteriorDraws(network, state, 4, 0, data()[0][:2])
    mean, variance = draws.moments(data()[0][:3])
    torch.testing.assert_close(variance, wanted, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(mean, network(data()[0][:3]).detach(), rtol=1e-9, atol=1e-12)


def test_its_forward_passes_go_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    network, state = fitted("BatchNorm CNN")
    x, ids = data(7)[0], list("abcdefg")
    wanted = posterior.PosteriorDraws(network, state, 4, 0, x)(x, ids)
    monkeypatch.setattr(memory, "KEPT_BYTES", 1)
    draws = posterior.PosteriorDraws(network, state, 4, 0, x)
    sizes: list[int] = []
    draws._spread._network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    torch.testing.assert_close(draws(x, ids), wanted, rtol=1e-9, atol=1e-12)
    assert sizes == [3, 2, 2]


@pytest.mark.parametrize("bias", [True, False])
def test_the_last_layer_in_closed_form_is_what_laplace_torch_says(bias: bool) -> None:
    """Mean and J S J^T from its own Jacobians."""
    import laplace  # seconds, which a worker that does not run this need not wait

    torch.manual_seed(0)
    network = build("BatchNorm CNN")
    network.fc = nn.Linear(network.fc.in_features, 5, bias=bias).double()
    x, y = data()
    oracle = laplace.Laplace(
        private_copy(network).requires_grad_(True),
        "classification",
        subset_of_weights="last_layer",
        hessian_structure="kron",
        last_layer_name="fc",
    )
    oracle.fit(DataLoader(TensorDataset(x, y), batch_size=64))
    oracle.optimize_prior_precision(method="marglik")
    wanted_mean, wanted = oracle._glm_predictive_distribution(x[:3])
    draws = posterior.PosteriorDraws(network, posterior.fit(network, x, y), 4, 0, x[:2])
    mean, variance = draws.moments(x[:3])
    torch.testing.assert_close(mean, wanted_mean.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(variance, wanted.detach(), rtol=1e-5, atol=1e-9)
    assert draws(x[:3], IDS).shape == (3, 4, 5)


def test_many_classes_need_no_jacobian() -> None:
    """Which has C C (d + 1) entries for every image: 31 million for 200 classes and 768 features."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 200)).eval()
    x = data()[0].float()
    state = posterior.fit(network, x, torch.randint(0, 200, (len(x),)))
    made: list[int] = []
    draws = posterior.PosteriorDraws(network, state, 2, 0, x[:2])
    with Largest(made):
        draws(x[:3], IDS)
    assert max(made) <= 200 * 3 * SIZE * SIZE


class Largest(TorchDispatchMode):
    """Notes how many entries every tensor has that is made."""

    def __init__(self, made: list[int]) -> None:
        super().__init__()
        self._made = made

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._made += [value.numel() for value in pytree.tree_leaves(out) if isinstance(value, Tensor)]
        return out


@pytest.mark.parametrize("structure", ["last", "all"])
def test_a_stored_posterior_gives_the_same_draws(structure: str) -> None:
    network, state = fitted("BatchNorm CNN", structure)
    restored = safetensors.torch.load(safetensors.torch.save(state))
    assert fingerprint(restored) == fingerprint(state)
    x = data()[0][:3]
    first, second = (posterior.PosteriorDraws(network, one, 5, 0, x)(x, IDS) for one in (state, restored))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert first.shape == (3, 5, 5)


def test_draws_have_the_moments_of_the_posterior_and_belong_to_the_image() -> None:
    network, state = fitted("BatchNorm CNN")
    x = data()[0][:3]
    many = posterior.PosteriorDraws(network, state, 20_000, 0, x)
    mean, variance = many.moments(x)
    log_p = many(x, IDS)
    centred = log_p - log_p.mean(2, keepdim=True)  # logits up to a constant
    projection = torch.eye(5, dtype=torch.float64) - 0.2
    torch.testing.assert_close(centred.mean(1), mean @ projection, rtol=0, atol=0.05)
    sample = torch.stack([torch.cov(one.T) for one in centred])
    torch.testing.assert_close(sample, projection @ variance @ projection, rtol=0.1, atol=0.02)
    few = posterior.PosteriorDraws(network, state, 3, 0, x)
    torch.testing.assert_close(few(x[[2, 0]], ["c", "a"]), few(x, IDS)[[2, 0]], rtol=1e-6, atol=1e-9)


def test_the_score_is_the_mutual_information_of_the_draws() -> None:
    network, state = fitted("BatchNorm CNN")
    classifier = Classifier(network, SIZE, mean=0.0, std=1.0)
    x = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scorer = Scorer(classifier, ["laplace", "entropy"], draws=50, posterior=state)
    assert scorer.plan["posterior"] == fingerprint(state)[:16]
    p = posterior.PosteriorDraws(network, state, 50, 0, x)(x, IDS).exp()
    wanted = -(p.mean(1) * p.mean(1).log()).sum(1) + (p * p.log()).sum(2).mean(1)
    torch.testing.assert_close(scorer(x, IDS)["laplace"], wanted, rtol=1e-6, atol=1e-9)


def test_the_precision_of_gradients_does_not_touch_it() -> None:
    network = build("BatchNorm CNN", torch.float32)
    x, y = data()
    state = posterior.fit(network, x.float(), y)
    classifier = Classifier(network, SIZE, mean=0.0, std=1.0)
    fine, coarse = (
        Scorer(classifier, ["laplace", "regrad"], samples=1, posterior=state, precision=precision)(x[:3].float(), IDS)
        for precision in ("float32", "bfloat16")
    )
    torch.testing.assert_close(coarse["laplace"], fine["laplace"], rtol=1e-9, atol=0)


def test_what_is_missing_is_said() -> None:
    network, state = fitted("BatchNorm CNN")
    classifier = Classifier(network, SIZE, mean=0.0, std=1.0)
    with pytest.raises(UsageError, match="laplace: needs training data"):
        Scorer(classifier, ["laplace"])
    with pytest.raises(UsageError, match="fit structure 'some': one of last, all"):
        posterior.fit(network, *data(), structure="some")
    other = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 5)).double()
    with pytest.raises(UsageError, match="fitted on another network"):
        posterior.PosteriorDraws(other, state, 3, 0, data()[0][:2])
