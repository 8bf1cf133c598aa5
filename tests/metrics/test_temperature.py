"""The temperature against another optimiser on the same likelihood, and against what the data were drawn with."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
from sklearn.metrics import log_loss

from regrad.metrics import temperature
from regrad.metrics.temperature import fit_temperature, label_losses


def drawn(images: int, classes: int, true: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels with the probabilities softmax(z / true)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (images, classes))
    gumbel = rng.gumbel(size=(images, classes))
    return logits, (logits / true + gumbel).argmax(1)


@pytest.mark.parametrize(("classes", "true"), [(2, 0.5), (10, 1.7), (50, 3.0)])
def test_it_is_where_another_optimiser_finds_it(classes: int, true: float) -> None:
    logits, labels = drawn(400, classes, true)

    def likelihood(log_t: np.ndarray) -> float:
        z = logits / np.exp(log_t[0])
        p = np.exp(z - z.max(1, keepdims=True))
        return log_loss(labels, p / p.sum(1, keepdims=True), labels=np.arange(classes))

    wanted = scipy.optimize.minimize(likelihood, [0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14})
    assert fit_temperature(logits, labels) == pytest.approx(float(np.exp(wanted.x[0])), rel=1e-6)


def test_it_finds_what_labels_were_drawn_with_also_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = drawn(20_000, 5, 2.5)
    whole = fit_temperature(logits, labels)
    assert whole == pytest.approx(2.5, rel=0.03)
    monkeypatch.setattr(temperature, "_NUMBERS", 5 * 777)
    assert fit_temperature(logits.astype(np.float32) + np.float32(1e3), labels) == pytest.approx(whole, rel=1e-4)


def test_losses_are_minus_log_p() -> None:
    logits, labels = drawn(50, 7, 1.0)
    z = logits / 1.3
    wanted = np.log(np.exp(z).sum(1)) - z[np.arange(50), labels]
    np.testing.assert_allclose(label_losses(logits, labels, 1.3), wanted, rtol=1e-12, atol=1e-14)
    far = label_losses(np.array([[0.0, -1e4]]), np.array([1]))
    assert far.tolist() == [1e4]


def test_where_no_temperature_fits_it_says_why() -> None:
    logits, _ = drawn(30, 4, 1.0)
    with pytest.raises(ValueError, match="every label is the most probable class"):
        fit_temperature(logits, logits.argmax(1))
    with pytest.raises(ValueError, match="no more probable than by chance"):
        fit_temperature(logits, logits.argmin(1))
