"""The S3 server behind a proxy that does harm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.proxy import Proxy
from tests.services import Bucket, S3Server


@pytest.fixture
def proxy(s3_server: S3Server, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """In front of the server of ``bucket``: the jobs go through it, ``bucket.put`` goes past it."""
    with Proxy(s3_server.port).listening() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        yield proxy
