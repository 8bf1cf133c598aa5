"""What a worker takes over of the driver, and how an error of its own comes back."""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from regrad import storage
from regrad.errors import RegradError, UsageError
from regrad.importing import folders

# What a worker needs of the driver's environment to reach storage and caches.
_ENVIRONMENT = (
    *("AWS_", "GOOGLE_", "AZURE_", "FSSPEC_", "REGRAD_", "HF_"),
    *("TORCH_HOME", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
)

_NOT_FOR_WORKERS = ("REGRAD_NOTIFY",)  # a credential of the driver's alone


def surroundings() -> tuple[dict[str, str], list[str]]:
    """What a worker takes over of this process: variables, and folders to import from."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_ENVIRONMENT) and name not in _NOT_FOR_WORKERS
    }
    return environment, folders.own_folders()


def settle_in(environment: dict[str, str], paths: Sequence[str]) -> None:
    """Take over the driver's :func:`surroundings`, in a worker.

    Not through Ray's runtime_env: that one conflicts with a submitted job's own, and shows secrets.
    """
    os.environ.update(environment)
    folders.search_first(paths)


@dataclass(frozen=True)
class WorkerFailure:
    """An error as a worker returns it: raised there, it would arrive wrapped and retried."""

    message: str
    usage: bool
    traceback: str

    @classmethod
    def of(cls, error: Exception) -> WorkerFailure:
        """The one of ``error``, which is being handled."""
        message = str(error) if isinstance(error, RegradError) else f"a worker failed: {storage.reason(error)}"
        return cls(message, isinstance(error, UsageError), traceback.format_exc())

    def throw(self) -> NoReturn:
        """Raise the error again, here."""
        kind = UsageError if self.usage else RegradError
        raise kind(self.message) from RuntimeError(self.traceback)
