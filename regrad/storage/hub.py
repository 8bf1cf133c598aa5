"""Repositories of Hugging Face's hub (``hf://``) as they are now; requests end in time, and are repeated by our rule.

The client's own file system answers from the listing that it once had, repeats what failed by a rule of its own, and
waits for a listing without end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from regrad.storage import retry
from regrad.storage.faults import IncompleteRead

try:
    from fsspec.spec import AbstractBufferedFile
    from huggingface_hub import HfApi, HfFileSystem, constants, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import RepoFile, RepoFolder
    from huggingface_hub.hf_file_system import HfFileSystemResolvedRepositoryPath as InRepository
    from huggingface_hub.utils import get_session, hf_raise_for_status
except ImportError as error:
    raise ImportError("its client is not installed; pip install 'regrad[hf]'") from error

_LINKED = constants.HUGGINGFACE_HEADER_X_LINKED_ETAG  # of the file behind a redirection
_instances: dict[tuple[Any, ...], Hub] = {}


def connect_hub() -> Hub:
    """The hub: one file system for a process and its HF_* environment, shared by all threads."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("HF_")}
    key = (os.getpid(), *sorted(environment.items()))
    if key not in _instances:
        endpoint = environment.get("HF_ENDPOINT", "").rstrip("/") or constants.ENDPOINT
        _instances[key] = Hub(endpoint=endpoint, skip_instance_cache=True)
    return _instances[key]


class Hub(HfFileSystem):
    """As :class:`huggingface_hub.HfFileSystem`; what it says of a single file, it has asked for that very moment."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options | {"max_workers": 1})  # of which listings go through `list_repo_tree`
        self._api = _Api(endpoint=self.endpoint)

    def info(self, path: str, refresh: bool = False, revision: str | None = None, **options: Any) -> dict[str, Any]:
        """Name, size, type, and of a file ``ETag``, the checksum that a listing has: git's, or sha256 of a large file.

        Files are asked for where they are read from: of such requests the hub allows many times more.
        """
        place = self.resolve_path(path, revision=revision)
        if not place.path or not isinstance(place, InRepository):  # there is one request for either
            told: dict[str, Any] = super().info(path, refresh=True, revision=revision)
            return told
        try:
            head = self._api.get_hf_file_metadata(url=self._address(place), timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
        except HfHubHTTPError as error:
            if error.response.status_code != 404:
                raise
        else:
            return {"name": place.unresolve(), "size": head.size, "type": "file", "ETag": head.etag}
        if not self._api.get_paths_info(place.repo_id, place.path, revision=place.revision, repo_type=place.repo_type):
            raise FileNotFoundError(place.unresolve())
        return {"name": place.unresolve(), "size": 0, "type": "directory"}

    def read_whole(self, path: str) -> tuple[bytes, dict[str, Any]]:
        """The content and what the same answer says of it."""
        answer = self.download(path)
        told = next((step.headers for step in answer.history if _LINKED in step.headers), answer.headers)
        etag = told.get(_LINKED) or told.get("ETag", "")
        return answer.content, {"size": len(answer.content), "ETag": etag.removeprefix("W/")}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        """The whole content in one request."""
        if start is not None or end is not None:
            content: bytes = super().cat_file(path, start, end, **options)
            return content
        return bytes(self.download(path).content)

    def download(self, path: str, span: str = "") -> Any:
        """The answer that has the content of a file, or the bytes ``first-last`` of it."""
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={span}"} if span else {})}
        return self._api.ask("GET", self._address(self.resolve_path(path)), headers)

    def _address(self, place: InRepository) -> str:
        return str(
            hf_hub_url(
                place.repo_id, place.path, repo_type=place.repo_type, revision=place.revision, endpoint=self.endpoint
            )
        )

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "rb" or not isinstance(self.resolve_path(path), InRepository):
            return super()._open(path, mode, **options)
        return _File(self, path, **options)


class _File(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        return retry.call(self._fetch_once, start, end)

    def _fetch_once(self, start: int, end: int) -> bytes:
        content: bytes = self.fs.download(self.path, f"{start}-{end - 1}").content
        if missing := end - start - len(content):
            raise IncompleteRead(missing)
        return content


class _Api(HfApi):
    """The three requests that files need."""

    def ask(self, method: str, url: str, headers: dict[str, str] | None = None, **content: Any) -> Any:
        """The hub's answer, if it is what was asked for."""
        sent = {**self._build_hf_headers(), **(headers or {})}
        answer = get_session().request(
            method, url, headers=sent, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, follow_redirects=True, **content
        )
        hf_raise_for_status(answer)
        return answer

    def get_paths_info(self, repo_id: str, paths: Any, **where: Any) -> Any:
        """What there is at ``paths``, without those where nothing is."""
        url = self._url("paths-info", repo_id, where["revision"], where["repo_type"])
        return list(map(_entry, self.ask("POST", url, data={"paths": paths, "expand": False}).json()))

    def list_repo_tree(self, repo_id: str, path_in_repo: str | None = None, **where: Any) -> Iterator[Any]:
        """What is in a folder, page by page, each tried again for itself."""
        url = self._url("tree", repo_id, where["revision"], where["repo_type"])
        url += f"/{quote(path_in_repo, safe='')}" if path_in_repo else ""
        query: dict[str, Any] = {"params": {"recursive": where["recursive"], "expand": False}}
        while url:
            answer = retry.call(self.ask, "GET", url, **query)
            yield from map(_entry, answer.json())
            url, query = answer.links.get("next", {}).get("url"), {}

    def _url(self, kind: str, repo_id: str, revision: str, repo_type: str) -> str:
        return f"{self.endpoint}/api/{repo_type}s/{repo_id}/{kind}/{quote(revision, safe='')}"


def _entry(told: dict[str, Any]) -> RepoFile | RepoFolder:
    return RepoFile(**told) if told["type"] == "file" else RepoFolder(**told)
