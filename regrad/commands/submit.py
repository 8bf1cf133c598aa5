"""Run a job on a Ray cluster, and end with its exit code.

    regrad submit --address http://HEAD:8265 -- regrad score s3://bucket/shards \\
        --model torchvision:resnet50@IMAGENET1K_V2 --output s3://bucket/scores

Sends the working directory (no data: see --exclude and --max-size), submits what stands behind `--`, and shows what it
prints until its status says that it has ended. The token of the cluster comes from RAY_AUTH_TOKEN, from where
RAY_AUTH_TOKEN_PATH points, or from ~/.ray/auth_token. Ctrl-C and SIGTERM stop the job, unless --on-interrupt detach
leaves it running; a second one ends this command at once.

Exit codes: those of the job (0 done, 1 failed, 2 wrong usage, 3 a gate was exceeded, 4 too many rows in quarantine);
also 1 when the job server does not answer or the job was lost, 2 when nothing was submitted, 130 and 143 stopped.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from regrad.cli import Parser, Stopped, add_common, loading, run_command, say, signals_noted
from regrad.cluster import package
from regrad.settings.kinds import MEMORY


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments; returns the job's exit code."""
    return run_command(argv, run)


def run(arguments: Sequence[str]) -> int:
    """Submit and follow, or follow what was submitted before."""
    args = parse(arguments)

    with loading():
        from regrad.cluster import submit

    client = submit.job_client(args.address)
    job = args.follow
    if job is None:
        environment = submit.environment(args.env)
        with package.working_folder() as folder:
            packed = package.pack(args.working_dir, [*package.EXCLUDES, *args.exclude], args.max_size, folder)
            say(f"sending {args.working_dir}: {packed}; the largest: {packed.largest}")
            job = submit.submit(client, shlex.join(args.command), packed, environment, args.driver_cpus)
        say(f"submitted {job}")
    if args.detach:
        say(f"follow it with: regrad submit --follow {job}")
        return 0
    try:
        with signals_noted() as signals:  # raised in the middle of a request, one in some is swallowed
            info = submit.follow(client, job, show, signals)
    except Stopped as stopped:
        if args.on_interrupt == "detach":
            say(f"{stopped}: {job} goes on; follow it with: regrad submit --follow {job}")
        else:
            say(f"{stopped}: stopping {job}")
            say(f"{job}: {submit.stop(client, job).value}; what was committed stays, run the same command to go on")
        return stopped.exit_code
    code = submit.exit_code(info)
    why = f": {' '.join((info.message or '').split())[:300]}" if info.driver_exit_code is None and code else ""
    say(f"{job}: {info.status.value}, exit code {code}{why}")
    return code


def show(text: str) -> None:
    """What the job has printed since."""
    print(text, end="", flush=True)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments.

    Raises:
        UsageError: they make no sense.
    """
    flags = parser()
    args = flags.parse_args(arguments)
    if bool(args.command) == bool(args.follow):
        flags.error("give either a command behind `--` or --follow JOB")
    return args


def parser() -> Parser:
    """Its flags."""
    flags = Parser("submit", __doc__, "[--FLAG ...] -- COMMAND | --follow JOB")
    most, sent, run = flags.groups("what is sent", "run")
    most.add_argument("command", nargs="*", metavar="COMMAND", help="what to run, behind `--`")
    most.add_argument("--address", help="of the job server, http://HEAD:8265 (default: $RAY_ADDRESS)")
    most.add_argument("--working-dir", default=".", metavar="FOLDER", help="what the job can import (default: .)")
    most.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="a variable for the job; whoever sees the cluster's dashboard sees it too",
    )
    most.add_argument("--detach", action="store_true", help="end when the job is submitted")
    most.add_argument("--follow", metavar="JOB", help="follow a job that was submitted before")
    sent.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help=f"names not to send, besides {' '.join(package.EXCLUDES)} (a slash in front: at the top only)",
    )
    sent.add_argument(
        "--max-size",
        type=MEMORY,
        default=package.DEFAULT_MOST,
        metavar="SIZE",
        help="of the packed working directory (default: 50MB)",
    )
    run.add_argument("--driver-cpus", type=float, metavar="N", help="let the job itself wait for a node with N CPUs")
    run.add_argument("--on-interrupt", choices=("stop", "detach"), default="stop", help="of the job (default: stop)")
    add_common(run, "show tracebacks of this command")
    return flags
