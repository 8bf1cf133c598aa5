"""Scores that are set against training data: each against scikit-learn, or NumPy from the data themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from regrad import Classifier, Scorer, UsageError
from regrad.network.head import Head
from regrad.scores import SCORES, Inputs
from regrad.scores.statistics import FeatureStatistics, fit_statistics

CLASSES, WIDTH, TRAINED = 4, 12, 300
NAMES = [name for name, item in SCORES.items() if item.fitted == "statistics"]
IDS = ["a", "b", "c"]


def drawn(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


HEAD = Head(drawn(CLASSES, WIDTH, seed=1), drawn(CLASSES, seed=2))
LABELS = torch.arange(TRAINED) % CLASSES
#: Around the means of the classes, longer in some directions than in others.
TRAINING = (
    drawn(TRAINED, WIDTH, seed=3) * torch.linspace(0.2, 2, WIDTH) + 3 * drawn(CLASSES, WIDTH, seed=4)[LABELS]
).relu()
TRAINING = (TRAINING.relu() + 0.1 * drawn(TRAINED, WIDTH, seed=5)).float().double()  # as they are stored
H = 2 * drawn(20, WIDTH, seed=6) + TRAINING[:20]


class Plain(nn.Module):
    """A network whose features are its input."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, CLASSES).double()
        with torch.no_grad():
            self.head.weight.copy_(HEAD.weight)
            self.head.bias.copy_(HEAD.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


def statistics() -> FeatureStatistics:
    inputs = TRAINING.reshape(TRAINED, 1, 1, WIDTH)
    batches = [(inputs[part], LABELS[part]) for part in torch.arange(TRAINED).split(70)]
    return FeatureStatistics(fit_statistics(Plain().eval(), batches, torch.device("cpu")), HEAD)


def computed(name: str) -> np.ndarray:
    return SCORES[name].compute(Inputs(HEAD(H), features=H, head=HEAD, fitted=statistics())).numpy()


def log_sum_exp(z: np.ndarray) -> np.ndarray:
    return np.log(np.exp(z - z.max(1, keepdims=True)).sum(1)) + z.max(1)


W, B, X, Y, Q = HEAD.weight.numpy(), HEAD.bias.numpy(), TRAINING.numpy(), LABELS.numpy(), H.numpy()  # type: ignore[union-attr]


def react() -> np.ndarray:
    clip = np.sort(X.ravel())[round(0.9 * X.size) - 1]
    return -log_sum_exp(np.minimum(Q, clip) @ W.T + B)


def knn() -> np.ndarray:
    unit = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (X, Q)]
    return NearestNeighbors(n_neighbors=50, algorithm="brute").fit(unit[0]).kneighbors(unit[1])[0][:, -1]


def mahalanobis() -> np.ndarray:
    means = np.stack([X[c == Y].mean(0) for c in range(CLASSES)])
    fitted = EmpiricalCovariance(assume_centered=True).fit(X - means[Y])
    return np.min([fitted.mahalanobis(Q - mean) for mean in means], axis=0)


def relative_mahalanobis() -> np.ndarray:
    return mahalanobis() - EmpiricalCovariance().fit(X).mahalanobis(Q)


def vim() -> np.ndarray:
    origin = -np.linalg.pinv(W) @ B
    rest = np.linalg.svd(X - origin)[2][WIDTH // 2 :].T
    factor = (X @ W.T + B).max(1).mean() / np.linalg.norm((X - origin) @ rest, axis=1).mean()
    return factor * np.linalg.norm((Q - origin) @ rest, axis=1) - log_sum_exp(Q @ W.T + B)


def nci() -> np.ndarray:
    away = Q - X.mean(0)
    return -(W[(Q @ W.T + B).argmax(1)] * away).sum(1) / np.linalg.norm(away, axis=1)


REFERENCES = {f.__name__: f for f in (react, knn, mahalanobis, relative_mahalanobis, vim, nci)}


@pytest.mark.parametrize("name", NAMES)
def test_a_score_is_what_others_compute(name: str) -> None:
    wanted = REFERENCES[name]()
    np.testing.assert_allclose(computed(name), wanted, rtol=1e-9, atol=1e-9)
    assert len(np.unique(wanted)) == len(H)


@pytest.mark.parametrize("name", NAMES)
def test_features_that_never_vary_are_no_infinity(name: str) -> None:
    """Dead units, classes without images, and fewer images than neighbours or dimensions."""
    inputs = TRAINING[:7].reshape(7, 1, 1, WIDTH) * (torch.arange(WIDTH) < 4)
    state = fit_statistics(Plain().eval(), [(inputs, LABELS[:7] % 2)], torch.device("cpu"))
    h = torch.cat(
        [H, torch.zeros(1, WIDTH, dtype=torch.float64), inputs[:1].flatten(1), inputs.flatten(1).mean(0)[None]]
    )
    given = Inputs(HEAD(h), features=h, head=HEAD, fitted=FeatureStatistics(state, HEAD))
    assert bool(SCORES[name].compute(given).isfinite().all())


@pytest.mark.parametrize("name", NAMES)
def test_few_images_give_the_same_in_any_order(name: str) -> None:
    """What is rounding alone, as of directions that no image has, decides nothing."""
    few, labels = TRAINING[:4].reshape(4, 1, 1, WIDTH), LABELS[:4] % 2
    scores = []
    for order in (torch.arange(4), torch.tensor([3, 0, 2, 1])):
        state = fit_statistics(Plain().eval(), [(few[order], labels[order])], torch.device("cpu"))
        given = Inputs(HEAD(H), features=H, head=HEAD, fitted=FeatureStatistics(state, HEAD))
        scores.append(SCORES[name].compute(given))
    torch.testing.assert_close(*scores, rtol=1e-6, atol=1e-9)


def test_a_scorer_takes_them_and_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    classifier = Classifier(nn.Sequential(*layers).eval(), 8, mean=0.0, std=1.0)
    images = torch.rand(40, 3, 8, 8)
    state = fit_statistics(classifier.network, [(images, torch.arange(40) % 4)], torch.device("cpu"))
    scorer = Scorer(classifier, ("knn", "entropy"), statistics=state)
    with torch.no_grad():
        unit = nn.functional.normalize(nn.Sequential(*layers[:4])(images).double())
    wanted = torch.cdist(unit[:3], unit).sort(1).values[:, -1]  # fewer than 50: the last
    torch.testing.assert_close(scorer(images[:3], IDS)["knn"], wanted, rtol=1e-5, atol=1e-6)
    assert len(scorer.plan["statistics"]) == 16
    assert "statistics" not in Scorer(classifier, ("entropy",), statistics=state).plan
    with pytest.raises(UsageError, match="knn, vim: needs training data: --fit-data"):
        Scorer(classifier, ("knn", "entropy", "vim"))
    with pytest.raises(UsageError, match="are of another network"):
        Scorer(classifier, ("knn",), statistics={**state, "sums": state["sums"][:3]})


def peers() -> dict[str, np.ndarray]:
    """What pytorch-ood makes of the same features."""
    from pytorch_ood import detector  # seconds, which a worker that does not run this need not wait

    head = nn.Linear(WIDTH, CLASSES)
    head.load_state_dict({"weight": HEAD.weight, "bias": HEAD.bias})
    detectors = {
        "knn": detector.KNN(None, k=50),
        "mahalanobis": detector.Mahalanobis(None),
        "relative_mahalanobis": detector.RMD(None),
        "vim": detector.ViM(None, WIDTH // 2, head.weight.detach(), head.bias.detach()),
        "nci": detector.NCI(None, head),
    }
    for each in detectors.values():
        each.fit_features(TRAINING.float(), LABELS)
    scores = {name: each.predict_features(H.float()).detach().numpy() for name, each in detectors.items()}
    clipping = detector.ReAct(None, lambda maps: head(maps.flatten(1)))
    clipping.fit_feature_maps(TRAINING.float()[:, :, None, None], LABELS)
    return scores | {"react": clipping.predict_feature_maps(H.float()[:, :, None, None]).detach().numpy()}


def test_pytorch_ood_orders_images_alike() -> None:
    """In float32, and with a factor of its own for the distances of Mahalanobis."""
    for name, wanted in peers().items():
        assert np.corrcoef(computed(name), wanted)[0, 1] == pytest.approx(1, abs=1e-6)
        if "mahalanobis" not in name:
            np.testing.assert_allclose(computed(name), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["mahalanobis", "relative_mahalanobis"])
def test_what_never_varied_in_training_counts_nothing(name: str) -> None:
    """The pseudo-inverse of a covariance is 0 along dead units, as EmpiricalCovariance has it."""
    alive = torch.arange(WIDTH) < WIDTH - 3
    inputs = (TRAINING * alive).reshape(TRAINED, 1, 1, WIDTH)
    state = fit_statistics(Plain().eval(), [(inputs, LABELS)], torch.device("cpu"))
    known = FeatureStatistics(state, HEAD)
    scores = [
        SCORES[name].compute(Inputs(HEAD(h), features=h, head=HEAD, fitted=known)) for h in (H, H + 100.0 * ~alive)
    ]
    torch.testing.assert_close(*scores, rtol=1e-9, atol=1e-9)
