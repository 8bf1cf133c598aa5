"""A command that is watched, and killed: small programs that tell what contenders do."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil

from regrad.benchmarks.peers.watch import kill_all, kill_worker, last_line, read_seen, run_watched

# Tells a batch of ten; in the form FORK the batches are scored here and a forked child waits, in WORKER a child scores.
TELL = """
import os, sys, time
def tell():
    with open(os.environ["REGRAD_PEERS_LOG"], "a") as log:
        log.write(f"{time.time()} {os.getpid()} 10\\n")
def batches(number):
    for _ in range(number):
        tell(); time.sleep(0.1)
"""
ALONE = f"{TELL}\nbatches(3); print('all of them'); print('---')"
FORK = f"{TELL}\nif os.fork() == 0: time.sleep(60)\nbatches(2); print('waits', os.wait())"
IDLE = f"{TELL}\nif os.fork() == 0: time.sleep(2); os._exit(0)"
WORKER = f"{IDLE}\npid = os.fork()\nif pid == 0: batches(60)\nprint('ended by', os.waitpid(pid, 0)[1])"
ORPHAN = f"{TELL}\npid = os.fork()\nif pid == 0: os.setsid(); time.sleep(60)\nprint(pid, flush=True); batches(60)"


def program(code: str) -> list[str]:
    return [sys.executable, "-S", "-E", "-c", code]


def test_what_a_command_did(tmp_path: Path) -> None:
    before = time.time()
    ran = run_watched(program(ALONE), tmp_path, {})
    assert (ran.ended, ran.rows, ran.said, ran.killed, ran.without) == (0, 30, "all of them", None, False)
    assert before <= ran.started <= ran.seen[0].time < ran.seen[-1].time
    assert 1 < ran.peak_mb < 100


def test_all_are_killed_when_so_many_rows_are_scored(tmp_path: Path) -> None:
    ran = run_watched(program(WORKER), tmp_path, {}, 30, kill_all)
    assert ran.ended == -9
    assert 30 <= ran.rows < 600
    assert not psutil.pid_exists(ran.seen[0].process)


def test_a_worker_is_killed_and_its_parent_goes_on(tmp_path: Path) -> None:
    ran = run_watched(program(WORKER), tmp_path, {}, 20, kill_worker)
    assert (ran.ended, ran.said, ran.killed) == (0, "ended by 9", ran.seen[0].process)
    assert 20 <= ran.rows < 600


def test_where_the_command_scores_a_process_that_it_forked_is_killed(tmp_path: Path) -> None:
    ran = run_watched(program(FORK), tmp_path, {}, 10, kill_worker)
    assert ran.said == f"waits ({ran.killed}, 9)"
    assert ran.killed != ran.seen[0].process


def test_a_command_without_workers_has_none_to_kill(tmp_path: Path) -> None:
    ran = run_watched(program(ALONE), tmp_path, {}, 10, kill_worker)
    assert (ran.ended, ran.killed, ran.without) == (0, None, True)


def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    ran = run_watched(program(ORPHAN), tmp_path, {}, limit=1.5, last=0.2)
    assert ran.ended is None
    assert not psutil.pid_exists(int((tmp_path / "output.log").read_text()))


def test_a_line_that_is_being_written_is_left(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("1.5 7 10\n2.5 7 1")
    assert [(batch.time, batch.process, batch.rows) for batch in read_seen(tmp_path / "log")] == [(1.5, 7, 10)]
    assert read_seen(tmp_path / "none") == []


def test_the_last_words(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"first\n  an error \n\n--- \xff ---\n")
    assert last_line(tmp_path / "log") == "an error"
