"""One setting, and what of the rows depends on it."""

from __future__ import annotations

import pytest

from regrad.audit.options import OPTIONS as AUDIT_OPTIONS
from regrad.pipeline.options import OPTIONS
from regrad.settings.kinds import TEXT
from regrad.settings.option import MEANING, NOTHING, ROWS, VALUE, Option


@pytest.mark.parametrize(
    ("role", "decides"),
    [
        ("scorer", MEANING),
        ("model", VALUE),
        ("plugin", VALUE),
        ("fit", VALUE),
        ("read", ROWS),
        ("run", NOTHING),
        ("job", NOTHING),
    ],
)
def test_a_role_says_what_is_decided_unless_the_setting_does(role: str, decides: str) -> None:
    assert Option("a-b", role, "input", TEXT, None, "").decides == decides
    assert Option("a-b", role, "input", TEXT, None, "", decides=ROWS).decides == ROWS


def test_a_role_that_is_none_is_refused() -> None:
    with pytest.raises(KeyError):
        Option("a", "scorr", "input", TEXT, None, "")


def test_the_key_is_a_python_name() -> None:
    options = (*OPTIONS, *AUDIT_OPTIONS)
    assert all(option.key.isidentifier() for option in options)
    assert len({option.key for option in options}) == len(options)


def test_every_default_is_of_its_kind() -> None:
    for option in (*OPTIONS, *AUDIT_OPTIONS):
        if option.default is not None:
            assert option.kind(option.default) == option.default, option.name


def test_no_flag_that_says_how_the_work_is_done_decides_rows() -> None:
    decided = {option.key: option.decides for option in OPTIONS if option.role == "run"}
    assert set(decided.values()) == {NOTHING}
    assert {"output", "num_workers", "batch_size", "memory_budget", "limit", "replace"} <= decided.keys()
