"""A command on a Ray cluster, through its job server: what is sent, how it is followed, which exit code it has."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobInfo, JobStatus, JobSubmissionClient
from requests.exceptions import RequestException

from regrad import storage
from regrad.cluster.package import Package
from regrad.errors import RegradError, UsageError

_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_POLL_SECONDS = 1.0
_PATIENCE_SECONDS = 60.0  # without an answer of the job server
_REQUEST_SECONDS = (10.0, 60.0)  # to connect, and without a byte
_NOT_READY = "No available agent"  # of a head that no node has reported to yet, in Ray's words
_STOP_SECONDS = 30.0  # Ray itself kills 3 s after its SIGTERM


class _Client(JobSubmissionClient):
    """Ray's client, whose own requests would wait for ever."""

    def _do_request(self, *arguments: Any, **keywords: Any) -> Any:
        return super()._do_request(*arguments, **keywords, timeout=_REQUEST_SECONDS)


def job_client(address: str | None) -> JobSubmissionClient:
    """A client of the job server at ``address``, or at ``$RAY_API_SERVER_ADDRESS`` or ``$RAY_ADDRESS``.

    Raises:
        UsageError: no address, or the server wants another token.
        RegradError: nobody answers.
    """
    address = address or next(filter(None, map(os.environ.get, _ADDRESSES)), None)
    if address is None:
        raise UsageError("no cluster: give --address http://HEAD:8265, or set RAY_ADDRESS")
    for module in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{module}").setLevel(logging.WARNING)
    os.environ[_ADDRESSES[0]] = address  # Ray puts the environment before what it is told
    try:
        return _Client(address)
    except AuthenticationError as error:
        raise _refused(address, error) from error
    except Exception as error:  # ConnectionError, RuntimeError, ValueError, ...
        raise RegradError(f"no job server at {storage.mask(address)}: {storage.reason(error)}") from error


def submit(
    client: JobSubmissionClient, command: str, package: Package, environment: Mapping[str, str], cpus: float | None
) -> str:
    """Send ``package`` and start ``command`` in it, with ``environment`` and ``cpus`` of its own; the job's name.

    A cluster that has only just started is asked again for a minute.

    Raises:
        UsageError, RegradError: the server refused, or does not answer.
    """
    runtime = {"working_dir": str(package.path), "env_vars": dict(environment)}
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            job: str = client.submit_job(entrypoint=command, runtime_env=runtime, entrypoint_num_cpus=cpus)
            return job
        except AuthenticationError as error:
            raise _refused(client.get_address(), error) from error
        except (RequestException, RuntimeError) as error:
            if _NOT_READY not in str(error) or time.monotonic() > end:
                raise RegradError(f"the job server did not take the job: {storage.reason(error)}") from error
        time.sleep(_POLL_SECONDS)


def follow(
    client: JobSubmissionClient, job: str, show: Callable[[str], None], stopped: Sequence[BaseException] = ()
) -> JobInfo:
    """Show what ``job`` prints until its status says that it has ended, which alone decides; its last status.

    Whatever comes to be in ``stopped`` meanwhile is raised.

    Raises:
        UsageError: there is no such job.
        RegradError: the job server does not answer any more.
    """
    shown, heard = 0, time.monotonic()
    while True:
        for error in stopped:
            raise error
        try:
            info = client.get_job_info(job)
            log = client.get_job_logs(job) or ""
        except (RequestException, RuntimeError, AuthenticationError) as error:
            if "status code 404" in str(error):
                raise UsageError(f"the cluster knows no job {job}; `ray job list` shows those that it knows") from error
            if time.monotonic() - heard > _PATIENCE_SECONDS:
                raise RegradError(
                    f"the job server has not answered for {_PATIENCE_SECONDS:.0f} s ({storage.reason(error)}); {job} "
                    f"may go on: follow it with --follow {job}"
                ) from error
        else:
            heard = time.monotonic()
            show(log[shown:])
            shown = len(log)
            if info.status.is_terminal():
                return info
        time.sleep(_POLL_SECONDS)


def stop(client: JobSubmissionClient, job: str) -> JobStatus:
    """Ask ``job`` to stop, and wait for it a while; its status then."""
    client.stop_job(job)
    end = time.monotonic() + _STOP_SECONDS
    while not (status := client.get_job_status(job)).is_terminal() and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
    return status


def exit_code(info: JobInfo) -> int:
    """The code of the job's own process; without one, 0 of a job that succeeded, 143 of one stopped, else 1.

    A process that a signal ended has 128 and its number, as in a shell.
    """
    code: int | None = info.driver_exit_code
    if code is not None:
        return code if code >= 0 else 128 - code
    return {JobStatus.SUCCEEDED: 0, JobStatus.STOPPED: 143}.get(info.status, 1)


def environment(given: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` as it is, ``NAME`` with its value here.

    Raises:
        UsageError: it has none here.
    """
    variables = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator and name not in os.environ:
            raise UsageError(f"--env {name}: not set here; give --env {name}=VALUE")
        variables[name] = value if separator else os.environ[name]
    return variables


def _refused(address: str, error: Exception) -> UsageError:
    return UsageError(
        f"{storage.mask(address)} wants another token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
        "RAY_AUTH_TOKEN_PATH"
    )
