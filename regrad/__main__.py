"""The command ``regrad``: which command is meant, what each is for, and completion for a shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from regrad import __version__
from regrad.cli import nearest, run_job
from regrad.commands import COMMANDS, module_of
from regrad.errors import UsageError

SHELLS = ("bash", "zsh", "tcsh")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names with the others; returns its exit code."""
    name, *others = [*(sys.argv[1:] if argv is None else argv)] or [""]
    if name in COMMANDS:
        code: int = module_of(name).main(others)
        return code
    return run_job(lambda: answer(name, others))


def answer(name: str, others: Sequence[str]) -> int:
    """What is asked of ``regrad`` itself.

    Raises:
        UsageError: nothing that it knows.
    """
    if name in ("", "-h", "--help"):
        print(overview())
        return 0 if name else UsageError.exit_code
    if name == "--version":
        print(f"regrad {__version__}")
        return 0
    if name.partition("=")[0] == "--print-completion":
        print(completion(name.partition("=")[2] or [*others, ""][0]))
        return 0
    raise UsageError(
        f"no command {name}{nearest(name, [*COMMANDS, '--help', '--version', '--print-completion'])}; "
        "regrad --help lists the commands"
    )


def overview() -> str:
    """What ``regrad --help`` says."""
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "usage: regrad COMMAND ...",
            "",
            "Which images a pre-trained classifier does not understand.",
            "",
            *(f"  {name:<{width}}  {purpose}" for name, purpose in COMMANDS.items()),
            "",
            "regrad COMMAND --help               its flags, and examples",
            "regrad --version                    the version",
            f"regrad --print-completion SHELL     completes commands and flags in {', '.join(SHELLS)}: put",
            '                                    eval "$(regrad --print-completion bash)" into ~/.bashrc',
        ]
    )


def completion(shell: str) -> str:
    """The script by which ``shell`` completes commands, flags and their values, and file names elsewhere.

    Raises:
        UsageError: it is no shell that shtab knows.
    """
    if shell not in SHELLS:
        raise UsageError(f"--print-completion {shell}: one of {', '.join(SHELLS)}")
    import shtab  # here alone: no other command needs it

    whole = argparse.ArgumentParser("regrad", description="Which images a classifier does not understand.")
    whole.add_argument("--version", action="store_true", help="the version")
    whole.add_argument("--print-completion", choices=SHELLS, help="for the shell")
    commands = whole.add_subparsers()
    for name, purpose in COMMANDS.items():
        try:
            flags = module_of(name).parser()
        except UsageError:  # experiments, where they are not installed
            continue
        one = commands.add_parser(name, help=purpose, parents=[flags], add_help=False)
        for action in one._actions:
            if action.nargs != 0 and not action.choices:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    script: str = shtab.complete(whole, shell)
    return script


if __name__ == "__main__":
    sys.exit(main())
