"""The command `regrad` itself: what it says of its commands, what a wrong word resembles, completion, and start-up."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from regrad import __version__
from regrad.__main__ import SHELLS, main
from regrad.commands import COMMANDS, module_of
from tests.data import ROOT

HEAVY = ("torch", "torchvision", "ray", "pandas", "sklearn", "scipy", "plotly", "matplotlib")
# What answers without them; the processor time of all that is a fraction of a second.
LIGHT: list[list[str]] = [
    ["--help"],
    ["--version"],
    ["scroe"],
    ["status", "{run}"],
    ["score", "--list-score", "--sigam", "1"],
    ["score", "in.tar", "--model", "m:f", "--output", "out", "--engine", "exat"],
    ["audit", "in.tar", "--model", "m:f", "--output", "out", "--baseline", "known", "--gate", "nothing < 1"],
    ["report", "--id", "run", "--output", "out", "--threshold", "high"],
    ["filter", "run", "--top", "3", "--per-klass", "--output", "out"],
    ["select", "run", "--budget", "0", "--output", "out.csv"],
    ["check"],
    ["submit", "--follow", "job", "--", "true"],
    ["train", "in.tar"],
    ["demo", "--fast"],
    ["reproduce", "nonsense"],
    ["benchmark", "engines"],
    *([command, "--help"] for command in COMMANDS),
]
PROGRAM = """
import json, os, resource, sys

sys.argv[1:] = json.loads(os.environ["ARGUMENTS"])
from regrad.__main__ import main
try:
    code = main()
except SystemExit as ended:
    code = ended.code
used = resource.getrusage(resource.RUSAGE_SELF)
found = sorted(set(os.environ["HEAVY"].split()) & set(sys.modules))
print(json.dumps([code, found, used.ru_utime + used.ru_stime]))
"""


def test_help_says_what_each_command_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for command, purpose in COMMANDS.items():
        assert re.search(rf"^  {command} +{re.escape(purpose)}$", said, re.MULTILINE)
    assert main([]) == 2
    assert capsys.readouterr().out == said
    modules = sorted(path.stem for path in (ROOT / "regrad/commands").rglob("[!_]*.py"))
    assert sorted(COMMANDS) == modules


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"regrad {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scroe"], "error: no command scroe (did you mean score?); regrad --help lists the commands\n"),
        (["--verison"], "error: no command --verison (did you mean --version?); regrad --help lists the commands\n"),
        (["x"], "error: no command x; regrad --help lists the commands\n"),
        (["--print-completion", "fish"], "error: --print-completion fish: one of bash, zsh, tcsh\n"),
        (["status", "--josn", "out"], "(did you mean --json?); regrad status --help lists the options\n"),
    ],
)
def test_what_may_have_been_meant_is_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.endswith(message)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_shown_once_in_a_group_and_the_most_used_come_first(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: regrad {command}")
    assert re.findall(r"^([a-z ]+):$", said, re.MULTILINE)[0] == "most used"
    flags = module_of(command).parser()
    for flag in flags._option_string_actions:
        assert len(re.findall(rf"^  (?:-h, )?{flag}(?: |$)", said, re.MULTILINE)) == 1 or flag == "-h"
    most = said[said.index("most used:") :].split("\n\n")[0]
    assert len(re.findall(r"^  --", most, re.MULTILINE)) <= 8
    assert "options:" not in said
    assert "None" not in said


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_commands_flags_and_values(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in (*COMMANDS, "score-module", "k-center"))


def test_bash_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--print-completion", "bash"])
    (tmp_path / "completion").write_text(capsys.readouterr().out)
    (tmp_path / "shard.tar").touch()

    def completed(*words: str) -> set[str]:
        program = (
            'source ./completion; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}\n'
            "$(complete -p regrad | sed 's/.*-F \\([^ ]*\\).*/\\1/') regrad\n"
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        ended = subprocess.run(
            ["bash", "-c", program, "bash", *words], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return set(ended.stdout.split())

    assert completed("regrad", "s") == {"score", "select", "status", "submit"}
    assert completed("regrad", "score", "--noise") == {"--noise-space"}
    assert completed("regrad", "score", "--engine", "e") == {"exact"}
    assert "shard.tar" in completed("regrad", "check", "sh")


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_what_needs_no_model_waits_for_no_import(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "{run}" in arguments:
        (tmp_path / "runs/r/ledger").mkdir(parents=True)
        (tmp_path / "runs/r/run.json").write_text(json.dumps({"schema_version": 2, "status": "done"}))
    spelled = [argument.replace("{run}", str(tmp_path / "runs/r")) for argument in arguments]
    monkeypatch.setenv("ARGUMENTS", json.dumps(spelled))
    monkeypatch.setenv("HEAVY", " ".join(HEAVY))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    ended = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=True)
    code, imported, seconds = json.loads(ended.stdout.splitlines()[-1])
    assert imported == []
    assert code == (0 if arguments[-1] in ("--help", "--version", "{run}") else 2)
    assert ended.stderr.count("\n") == (code != 0)
    assert seconds < 1.0  # of the processor; 0.1 to 0.35 measured
