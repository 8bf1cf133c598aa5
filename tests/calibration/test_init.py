"""The file of a calibration: what goes in comes out, and what is no such file, or of another network, is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regrad.calibration import Calibration
from regrad.errors import UsageError
from regrad.metrics.conformal import Quantiles

MODEL = {"spec": "tests:network", "network": "a" * 64, "fingerprint": "b" * 64, "classes": 10}


def made(**changed: Any) -> Calibration:
    losses = np.random.default_rng(0).exponential(size=19)
    return Calibration(**({"temperature": 1.1, "quantiles": Quantiles.of(losses), "model": MODEL} | changed))


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = made(about={"fitted_on": {"images": 38}})
    (tmp_path / "c.json").write_text(written.to_json())
    read = Calibration.read(str(tmp_path / "c.json"))
    assert (read, read.digest) == (written, written.digest)
    assert read.loss_bound(0.9) == sorted(read.quantiles.values)[17]
    with pytest.raises(UsageError, match=r"^coverage 0\.99: needs 99 images, there are 19; calibrate a run of more"):
        read.loss_bound(0.99)


def test_the_digest_is_of_what_rows_depend_on() -> None:
    assert made(about={"other": 1}, model={}).digest == made().digest
    assert made(temperature=1.2).digest != made().digest
    assert made(quantiles=Quantiles.of(np.arange(19.0))).digest != made().digest


def test_another_network_is_refused() -> None:
    made().check_network("a" * 64)
    with pytest.raises(UsageError, match=r"of another network \(tests:network, aaaaaaaaaaaa, not cccccccccccc\)"):
        made().check_network("c" * 64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a file of regrad calibrate"),
        ("[]", "not a file of regrad calibrate"),
        ('{"threshold_version": 2}', "not a file of regrad calibrate"),
        (json.dumps(json.loads(made().to_json()) | {"calibration_version": 9}), "version 9, this regrad reads 1"),
    ],
)
def test_what_is_no_calibration_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(UsageError, match=message) as caught:
        Calibration.read(str(tmp_path / "c.json"))
    assert str(tmp_path / "c.json") in str(caught.value)
    with pytest.raises(UsageError, match=r"^temperature .*nowhere\.json: no such file"):
        Calibration.read(str(tmp_path / "nowhere.json"))
