"""The S3 server behind a proxy that does harm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.proxy import Proxy
from tests.services import Bucket


@pytest.fixture
def proxy(s3_server: tuple[int, Path], bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """In front of the server of ``bucket``: the jobs go through it, ``bucket.put`` goes past it."""
    with Proxy(s3_server[0]).listening() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        yield proxy
