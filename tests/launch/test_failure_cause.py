import signal

import pytest

from parbench.launch.base import Outcome
from parbench.launch.failure_cause import find_cause
from parbench.launch.trial_folder import LOG_TAIL_CHARACTERS, log_tail, prepare_folder, read_ranks
from parbench.records.assignment import Assignment
from parbench.records.corpus import Corpus
from parbench.records.trial import Failure
from tests.support.records import job, rank

ASSIGNMENT = Assignment(
    purpose="measure",
    cell="lstm/single/1",
    key="key",
    round=0,
    workload={},
    strategy="single",
    options={},
    device_kind="cpu",
    devices=1,
    threads=1,
    cores=((0,),),
    corpus=Corpus(path="tokens", sha256="0" * 64, tokens=100, vocab_size=256, dtype="uint8"),
    seed=0,
    warmup="auto",
    window_s=1.0,
    validation_batches=1,
    deadline_s=60.0,
)


def ended(*exit_codes: int | None, timed_out: bool = False) -> Outcome:
    return Outcome(exit_codes=exit_codes, wall_s=12.34, timed_out=timed_out)


def failed(number: int, error: str, at: float, *, stage: str = "window", out_of_memory: bool = False):
    failure = Failure(error=error, traceback="", out_of_memory=out_of_memory, at=at)
    return rank(number, stage=stage, failure=failure)


@pytest.mark.parametrize(
    ("outcome", "ranks", "status", "reason"),
    [
        pytest.param(ended(0, 0), [rank(0), rank(1)], "ok", None, id="ok"),
        pytest.param(
            ended(1),
            [failed(0, "ValueError: no\nmore", 1.0, stage="setup")],
            "failed",
            "rank 0 failed in setup: ValueError: no",
            id="an error",
        ),
        pytest.param(
            ended(1, 1, 1),
            [
                failed(0, "RuntimeError: connection reset by peer", 7.2),
                failed(1, "ValueError: the cause", 7.0),
                failed(2, "RuntimeError: connection closed", 7.1),
            ],
            "failed",
            "rank 1 failed in window: ValueError: the cause",
            id="the earliest failure is the cause",
        ),
        pytest.param(
            ended(1, 1),
            [failed(0, "RuntimeError: connection reset", 7.2), failed(1, "MemoryError: full", 7.0, out_of_memory=True)],
            "out_of_memory",
            "rank 1 failed in window: MemoryError: full",
            id="out of memory, and a victim",
        ),
        pytest.param(
            ended(1, 1),
            [failed(0, "ValueError: first", 7.0), failed(1, "MemoryError: full", 7.2, out_of_memory=True)],
            "failed",
            "rank 0 failed in window: ValueError: first",
            id="out of memory is not preferred",
        ),
        pytest.param(ended(1), [failed(0, "", 1.0)], "failed", "rank 0 failed in window: no message", id="no message"),
        pytest.param(
            ended(0, -9),
            [rank(0), rank(1, stage="window")],
            "killed",
            "rank 1 was ended by SIGKILL in window",
            id="killed",
        ),
        pytest.param(
            ended(1, -9),
            [failed(0, "RuntimeError: connection reset by peer", 7.0), rank(1, stage="warm-up")],
            "killed",
            "rank 1 was ended by SIGKILL in warm-up",
            id="who lost a killed peer is a victim",
        ),
        pytest.param(
            ended(0, -signal.SIGSEGV),
            [rank(0)],
            "killed",
            "rank 1 was ended by SIGSEGV before it started",
            id="killed before its first record",
        ),
        pytest.param(ended(-99), [rank(0)], "killed", "rank 0 was ended by signal 99 in done", id="nameless signal"),
        pytest.param(
            ended(-signal.SIGABRT, 1),
            [failed(0, "ValueError: the cause", 7.0), failed(1, "RuntimeError: connection reset", 7.1)],
            "failed",
            "rank 0 failed in window: ValueError: the cause",
            id="a rank that failed and then fell apart on its way out",
        ),
        pytest.param(
            ended(None, None, timed_out=True),
            [rank(0, stage="window"), rank(1, stage="window")],
            "timed_out",
            "still running after 12.3 s; rank 0 was in window",
            id="timed out",
        ),
        pytest.param(
            ended(None, None, timed_out=True),
            [rank(0, stage="window", jobs=()), rank(1, stage="setup", jobs=())],
            "timed_out",
            "still running after 12.3 s; rank 1 was in setup",
            id="timed out: the stage of the rank that is furthest behind",
        ),
        pytest.param(
            ended(None, None, timed_out=True),
            [rank(0, stage="window", jobs=(job(0), job(1))), rank(1, stage="warm-up", jobs=(job(2),))],
            "timed_out",
            "still running after 12.3 s; rank 1 was in warm-up",
            id="timed out: fewer models trained is behind",
        ),
        pytest.param(
            ended(None, 0, timed_out=True),
            [rank(0, stage="window", jobs=(job(0), job(2))), rank(1, stage="done", jobs=(job(1),))],
            "timed_out",
            "still running after 12.3 s; rank 0 was in window",
            id="timed out: who is done is not behind",
        ),
        pytest.param(
            ended(None, None, timed_out=True),
            [rank(0, stage="join", jobs=())],
            "timed_out",
            "still running after 12.3 s; rank 1 had not started",
            id="timed out: one never started",
        ),
        pytest.param(
            ended(None, None, timed_out=True),
            [],
            "timed_out",
            "still running after 12.3 s; no rank had started",
            id="timed out: none started",
        ),
        pytest.param(
            ended(1, None, timed_out=True),
            [failed(0, "RuntimeError: timed out waiting", 7.0), rank(1, stage="window")],
            "timed_out",
            "still running after 12.3 s; rank 1 was in window",
            id="timed out: who gave up waiting is a victim",
        ),
        pytest.param(
            ended(0, 3),
            [rank(0), rank(1, stage="setup")],
            "failed",
            "rank 1 ended with exit code 3 in setup, without an error message",
            id="an exit code without a failure",
        ),
        pytest.param(
            ended(None, 3),
            [rank(0, stage="join"), rank(1, stage="setup")],
            "failed",
            "rank 1 ended with exit code 3 in setup, without an error message",
            id="who was ended for waiting on it is a victim",
        ),
        pytest.param(
            ended(1, 0),
            [failed(0, "RuntimeError: connection closed", 7.0), rank(1, stage="window")],
            "failed",
            "rank 1 ended with exit code 0 in window, without an error message",
            id="who lost a peer that left is a victim",
        ),
        pytest.param(
            ended(0, 0),
            [rank(0)],
            "failed",
            "rank 1 ended with exit code 0 before it started, without an error message",
            id="a missing record",
        ),
        pytest.param(
            ended(0, 5),
            [rank(0), rank(1)],
            "failed",
            "the ranks ended with exit codes 0, 5",
            id="done, yet an exit code",
        ),
        pytest.param(
            ended(0, None),
            [rank(0), rank(1)],
            "failed",
            "the ranks ended with exit codes 0, None",
            id="done, yet ended",
        ),
    ],
)
def test_verdicts(outcome, ranks, status, reason):
    assert find_cause(outcome, ranks) == (status, reason)


def test_a_long_message_is_cut():
    _, reason = find_cause(ended(1), [failed(0, "x" * 10_000, 1.0)])
    assert reason == f"rank 0 failed in window: {'x' * 500}"


def test_ranks_are_read_in_their_order_and_broken_ones_have_failed(tmp_path):
    for number in (2, 0, 4):
        (tmp_path / f"rank{number}.json").write_text(rank(number).model_dump_json())
    (tmp_path / "rank1.json").write_text(rank(1).model_dump_json()[:-20])
    (tmp_path / "rank3.json").write_bytes(b"\xff\x00")
    (tmp_path / "rank5.json").mkdir()
    found = read_ranks(tmp_path, 7)
    assert [each.rank for each in found] == [0, 1, 2, 3, 4]
    assert [each for each in found if each.failure is None] == [rank(0), rank(2), rank(4)]
    assert found[1].failure.error.startswith("its record cannot be used: ")
    assert read_ranks(tmp_path, 1) == (rank(0),)


def test_the_log_is_every_ranks_end(tmp_path):
    (tmp_path / "rank0.log").write_text("first line\n" + "x" * LOG_TAIL_CHARACTERS)
    (tmp_path / "rank1.log").write_text(" \n")
    (tmp_path / "rank2.log").write_bytes(b"caf\xe9\n")
    assert log_tail(tmp_path, 4) == f"[rank 0]\n{'x' * LOG_TAIL_CHARACTERS}\n[rank 2]\ncaf\N{REPLACEMENT CHARACTER}"


def test_a_trial_without_output_has_an_empty_log(tmp_path):
    assert log_tail(tmp_path, 2) == ""


def test_a_folder_is_ready_for_a_trial_whatever_an_earlier_one_left(tmp_path):
    folder = tmp_path / "deep" / "trial"
    prepare_folder(folder, ASSIGNMENT)
    for leftover in ("rank0.json", "rank1.json", "rank0.log", "rank0.tmp"):
        (folder / leftover).write_text("old")
    prepare_folder(folder, ASSIGNMENT)
    assert [path.name for path in folder.iterdir()] == ["cell.json"]
    assert Assignment.model_validate_json((folder / "cell.json").read_text()) == ASSIGNMENT
