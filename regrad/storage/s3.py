"""S3 through s3fs, with every single request and every body tried again by our own rule, and by nobody else's."""

from __future__ import annotations

import os
from typing import Any

import s3fs
from fsspec.asyn import sync_wrapper
from s3fs.core import S3File, version_id_kw

from regrad.storage import faults, retry

_CHUNK_BYTES = 2**20
_instances: dict[tuple[Any, ...], S3] = {}


def connect(uri: str) -> S3:
    """The file system for ``uri``: one for a process and its AWS_* environment, shared by all threads."""
    options = S3._get_kwargs_from_urls(uri)
    environment = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "FSSPEC_"))}
    key = (os.getpid(), *sorted(environment.items()), *options.items())
    if key not in _instances:
        # No listings cache: what another process wrote, or what has changed since, must be seen. And the ETag of each
        # answer is compared here, since not every store compares it for us (If-Match).
        _instances[key] = S3(use_listings_cache=False, local_expiry_check=True, skip_instance_cache=True, **options)
    return _instances[key]


class S3(s3fs.S3FileSystem):
    """s3fs without retries of its own and of botocore's: both would multiply with ours, unseen and uncounted."""

    retries = 1
    read_timeout = 10  # seconds without a byte

    def _prepare_config_kwargs(self) -> dict[str, Any]:
        return super()._prepare_config_kwargs() | {"retries": {"total_max_attempts": 1, "mode": "standard"}}

    async def _call_s3(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        # Each request for itself: a listing of many pages would hardly get through if it had to start over.
        request = super()._call_s3
        try:
            return await retry.call_async(request, method, *arguments, **keywords)
        except Exception as error:
            if method == "head_object" and faults.is_refusal(error):
                # The answer to a HEAD has no body, so it cannot say why; that to a GET can.
                (await request("get_object", Bucket=keywords["Bucket"], Key=keywords["Key"]))["Body"].close()
            raise

    call_s3 = sync_wrapper(_call_s3)

    async def _read_whole(self, path: str) -> tuple[bytes, dict[str, Any]]:
        """The content and what the same answer says of it; a body that breaks off is read on from there.

        If there is another content by then, that is read from its start: a small file, such as a lease, may change at
        any time, and whoever needs what was planned compares identities.
        """
        request = super()._call_s3
        bucket, key, version = self.split_path(path)
        content = bytearray()
        info: dict[str, Any] = {}

        async def ask() -> dict[str, Any]:
            rest = {"Range": f"bytes={len(content)}-"} if content else {}
            try:
                answer: dict[str, Any] = await request(
                    "get_object", Bucket=bucket, Key=key, **version_id_kw(version), **rest, **self.req_kw
                )
            except Exception as error:
                if not content or not faults.is_beyond_end(error):
                    raise
            else:
                if not content:
                    info.update(ETag=answer.get("ETag", ""), size=answer["ContentLength"])
                    return answer
                if answer.get("ETag", "") == info["ETag"]:
                    return answer
                answer["Body"].close()
            content.clear()
            return await ask()

        async def read_on() -> None:
            answer = await ask()
            try:
                while chunk := await answer["Body"].read(_CHUNK_BYTES):
                    content.extend(chunk)
            finally:
                answer["Body"].close()
            if len(content) < info["size"]:
                raise faults.IncompleteRead(info["size"] - len(content))

        await retry.call_async(read_on)
        return bytes(content), info

    read_whole = sync_wrapper(_read_whole)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "rb":
            return super()._open(path, mode, **options)
        return _File(
            self,
            path,
            block_size=options.get("block_size") or self.default_block_size,
            cache_type=options.get("cache_type") or self.default_cache_type,
            requester_pays=self.requester_pays,
            s3_additional_kwargs=self.s3_additional_kwargs,
        )


class _File(S3File):
    def _fetch_range(self, start: int, end: int) -> bytes:
        return retry.call(self._fetch_once, start, end)

    def _fetch_once(self, start: int, end: int) -> bytes:
        content = super()._fetch_range(start, end)
        missing = min(end, self.size) - start - len(content)
        if missing > 0:  # short, though the transfer ended well: it must not be taken for the end of the file
            raise faults.IncompleteRead(missing)
        return content
