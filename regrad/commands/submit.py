"""Run a job on a Ray cluster, and end with its exit code.

    python jobs/submit.py --address http://HEAD:8265 -- python jobs/score.py s3://bucket/shards \\
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
import sys
from collections.abc import Sequence

from regrad.cli import Parser, Stopped, run_job, signals_noted
from regrad.cluster import submit
from regrad.errors import UsageError
from regrad.pipeline.options import memory


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments; returns the job's exit code."""
    args = sys.argv[1:] if argv is None else list(argv)
    own = args[: args.index("--")] if "--" in args else args
    return run_job(lambda: run(parse(args)), verbose="--verbose" in own)


def run(args: argparse.Namespace) -> int:
    """Submit and follow, or follow what was submitted before."""
    client = submit.connect(args.address)
    job = args.follow
    if job is None:
        environment = submit.environment(args.env)
        with submit.working_folder() as folder:
            package = submit.pack(args.working_dir, [*submit.EXCLUDES, *args.exclude], args.max_size, folder)
            say(f"sending {args.working_dir}: {package}; the largest: {package.largest}")
            job = submit.submit(client, shlex.join(args.command), package, environment, args.driver_cpus)
        say(f"submitted {job}")
    if args.detach:
        say(f"follow it with: python jobs/submit.py --follow {job}")
        return 0
    try:
        with signals_noted() as signals:  # raised in the middle of a request, one in some is swallowed
            info = submit.follow(client, job, show, signals)
    except Stopped as stopped:
        if args.on_interrupt == "detach":
            say(f"{stopped}: {job} goes on; follow it with: python jobs/submit.py --follow {job}")
        else:
            say(f"{stopped}: stopping {job}")
            say(f"{job}: {submit.stop(client, job).value}; what was committed stays, run the same command to go on")
        return stopped.exit_code
    code = submit.exit_code(info)
    why = f": {' '.join((info.message or '').split())[:300]}" if info.driver_exit_code is None and code else ""
    say(f"{job}: {info.status.value}, exit code {code}{why}")
    return code


def say(text: str) -> None:
    """A line of this command's own."""
    print(text, file=sys.stderr, flush=True)


def show(text: str) -> None:
    """What the job has printed since."""
    print(text, end="", flush=True)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments.

    Raises:
        UsageError: they make no sense.
    """
    parser = Parser(prog="submit.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="what to run, behind `--`")
    parser.add_argument("--address", help="of the job server, http://HEAD:8265; default: $RAY_ADDRESS")
    parser.add_argument("--working-dir", default=".", metavar="FOLDER", help="what the job can import (default: .)")
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help=f"names not to send, besides {' '.join(submit.EXCLUDES)} (a slash in front: at the top only)",
    )
    parser.add_argument(
        "--max-size", type=memory, default=submit.DEFAULT_MOST, help="of the packed working directory (default: 50MB)"
    )
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="a variable for the job; whoever sees the cluster's dashboard sees it too",
    )
    parser.add_argument("--driver-cpus", type=float, metavar="N", help="let the job itself wait for a node with N CPUs")
    parser.add_argument("--detach", action="store_true", help="end when the job is submitted")
    parser.add_argument("--follow", metavar="JOB", help="follow a job that was submitted before")
    parser.add_argument("--on-interrupt", choices=("stop", "detach"), default="stop", help="(default: stop)")
    parser.add_argument("--verbose", action="store_true", help="show tracebacks of this command")
    args = parser.parse_args(argv)
    if bool(args.command) == bool(args.follow):
        raise UsageError("give either a command behind `--` or --follow JOB; submit.py --help lists the options")
    return args
