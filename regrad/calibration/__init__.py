"""What ``regrad calibrate`` writes and ``--temperature FILE`` takes: a temperature, and what prediction sets need."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from regrad import storage
from regrad.errors import UsageError
from regrad.metrics.conformal import Quantiles

VERSION = 1


@dataclass(frozen=True)
class Calibration:
    """T, and quantiles of -log softmax(z / T)[y] over labelled images that T was not fitted on.

    Attributes:
        temperature: T.
        quantiles: of the losses of labels, in nats.
        model: ``spec, network`` (its fingerprint)``, fingerprint, classes`` as ``run.json`` had them.
        about: what it was made of, and what T did to other images; nothing depends on it.
    """

    temperature: float
    quantiles: Quantiles
    model: dict[str, Any]
    about: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The content of the file."""
        own = {"temperature": self.temperature, "model": self.model, **self.about, "quantiles": asdict(self.quantiles)}
        return json.dumps({"calibration_version": VERSION} | own, indent=1) + "\n"

    @classmethod
    def read(cls, uri: str) -> Calibration:
        """The calibration at ``uri``.

        Raises:
            UsageError: there is none, or it is of another version.
            RegradError: the storage refused or failed.
        """
        where = f"temperature {storage.mask(uri)}"
        try:
            content = json.loads(storage.read_bytes(uri))
            version, quantiles = content.pop("calibration_version"), content.pop("quantiles")
            temperature, model = float(content.pop("temperature")), dict(content.pop("model"))
            kept = Quantiles(
                int(quantiles["images"]), tuple(map(int, quantiles["ranks"])), tuple(map(float, quantiles["values"]))
            )
        except FileNotFoundError as error:
            raise UsageError(f"temperature {error}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(f"{where}: not a file of regrad calibrate ({storage.reason(error)})") from error
        if version != VERSION:
            raise UsageError(f"{where}: a calibration of version {version}, this regrad reads {VERSION}; make it again")
        return cls(temperature, kept, model, content)

    @cached_property
    def digest(self) -> str:
        """Stands for all that rows depend on."""
        return hashlib.sha256(repr((self.temperature, self.quantiles)).encode()).hexdigest()

    def check_network(self, fingerprint: str) -> None:
        """Refuse another network than that of the calibrated run.

        Args:
            fingerprint: of the network as it is before its logits are divided.

        Raises:
            UsageError: it is another.
        """
        if fingerprint != self.model["network"]:
            raise UsageError(
                f"the calibration is of another network ({self.model['spec']}, {self.model['network'][:12]}, not "
                f"{fingerprint[:12]}); calibrate a run of this one"
            )

    def loss_bound(self, coverage: float) -> float:
        """What the loss of a label does not exceed with a probability of at least ``coverage``, see :class:`Quantiles`.

        Raises:
            UsageError: it was made of too few images for that.
        """
        try:
            return self.quantiles.at(coverage)
        except ValueError as error:
            raise UsageError(
                f"coverage {coverage:g}: {error}; calibrate a run of more labelled images, or ask for less"
            ) from error
