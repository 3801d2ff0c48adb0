"""Grades that arrive later are those of the checkers; what crashes or hangs loses its pair alone; nobody outlives the asker."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from specexit_jax.data.checkers import accepts, agrees
from specexit_jax.data.grading.grader import Grader, Later, together
from specexit_jax.data.programs import CodeTests, require_sandbox

TESTS = Path(__file__).resolve().parent
CASE = {"judge": "grading_case:judge", "dear": {"text": 30.0}, "paths": (str(TESTS),)}


def value(grade):
    return grade.result() if isinstance(grade, Future) else grade


def alive(pid):
    return Path(f"/proc/{pid}/cmdline").exists() and b"grading" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_grades_of_processes_are_those_of_the_checkers():
    pairs = [("\\boxed{1/2}", "0.5"), ("\\boxed{3}", "4"), (None, "4"), ("x\ud800", "x"), ("It is B.", "B"), ("C", "B")]
    with Grader(2) as pool, Grader() as here:
        for checker in ("math", "choice", "text"):
            for answer, reference in pairs:
                wanted = accepts(checker, "task", answer, reference)
                assert value(pool.accepts(checker, "task", answer, reference)) is wanted
                assert here.accepts(checker, "task", answer, reference) is wanted
                assert value(pool.agrees(checker, "task", answer, reference, "7")) is wanted
                assert agrees(checker, "task", answer, reference, "7") is wanted
        assert pool.agrees("math", "task", "1", None, "1") is False


def test_programs_run_in_their_sandbox_from_a_grading_process():
    try:
        require_sandbox()
    except ValueError as absent:
        pytest.skip(str(absent))
    tests = CodeTests("def half(n):\n", "def check(candidate):\n    assert candidate(4) == 2", "half").reference()
    right, same, wrong = (f"```python\ndef half(n):\n    return {text}\n```" for text in ("n / 2", "n * 0.5", "n - 1"))
    with Grader(1) as pool:
        asked = [pool.accepts("code", "any", answer, tests) for answer in (right, wrong)]
        asked += [pool.agrees("code", "any", answer, right, tests) for answer in (same, wrong)]
        assert [value(grade) for grade in asked] == [True, False, True, False]


def test_cheap_checkers_and_no_workers_start_no_process(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    with Grader(4) as pool, Grader() as here:
        assert pool.accepts("world", "chain_sum", "3", "3") is True
        assert pool.accepts("text", "any", "Paris", "paris.") is True
        assert pool.measured(Grader().tally()) == {}
        assert here.accepts("math", "any", "1/2", "0.5") is True and here.accepts("math", "any", "1/2", "0.5") is True
        assert here.measured(Grader().tally()) == {
            "grading": {"workers": 0, "asked": 2, "known": 1, "lost": 0, "waited_seconds": 0.0}
        }
    with pytest.raises(ValueError, match=r"0 or more, not -1: see config\.grading\.workers"):
        Grader(-1)


def test_equal_pairs_are_graded_once(tmp_path):
    asked = f"pid {tmp_path / 'asked'}"
    with Grader(2, **CASE) as pool:
        grades = [pool.accepts("text", "t", asked, "r") for _ in range(5)]
        assert [value(grade) for grade in grades] == [False] * 5
        assert pool.agrees("text", "t", asked, "r", "other") is False  # the same question, and known by now
        value(pool.accepts("text", "t", asked, "s")), value(pool.accepts("text", "u", asked, "r"))
        assert len((tmp_path / "asked").read_text().split()) == 3
        assert pool.tally()["known"] == 5


def test_processes_import_no_jax_and_their_prints_are_no_answers(capfd):
    with Grader(1, **CASE) as pool:
        assert value(pool.accepts("text", "t", "modules", "")) is True
        assert value(pool.accepts("text", "t", "print", "print")) is True
    assert "words of a library" in capfd.readouterr().err


def test_a_crash_or_a_hang_loses_its_pair_alone_and_is_told(capfd, tmp_path):
    with Grader(2, **CASE | {"dear": {"text": 0.5}}) as pool:
        answers = ["right", "crash", "right ", "hang", f"once {tmp_path / 'met'}", "wrong"]
        grades = [pool.accepts("text", "t", answer, answer.replace("wrong", "right")) for answer in answers]
        assert [value(grade) for grade in grades] == [True, False, True, False, True, False]
        assert pool.tally()["lost"] == 2
    told = capfd.readouterr().err
    assert "could grade count as not accepted; the first is one of the checker text" in told


def test_what_a_checker_raises_is_raised_where_its_grade_is_read():
    with Grader(1, **CASE) as pool:
        with pytest.raises(ValueError, match="this reference is no test"):
            value(pool.accepts("text", "t", "raise", ""))
        assert value(pool.accepts("text", "t", "a", "a")) is True


def test_a_process_that_cannot_start_is_no_wrong_answer(capfd):
    pool = Grader(1, judge="no_such_module:judge", dear={"text": 1.0})
    with pool, pytest.raises(OSError, match="could not start .* with --config.grading.workers=0"):
        value(pool.accepts("text", "t", "a", "a"))
    assert "no_such_module" in capfd.readouterr().err


def test_rows_arrive_when_their_grades_do_and_few_wait():
    with Grader(2, **CASE) as pool:
        made, arrived = [], []

        def rows():
            for number, answer in enumerate(("sleep 0.4", "a", "sleep 0.01", "b", "c")):
                made.append(number)
                yield Later([pool.accepts("text", "t", answer, "a")], lambda grades, n=number: (n, *grades))

        for row in pool.arrived(rows(), most=2):
            arrived.append(row)
            assert len(made) - len(arrived) <= 2
        assert sorted(arrived) == [(0, True), (1, True), (2, True), (3, False), (4, False)]
        assert arrived[0] != (0, True) and pool.tally()["waited_seconds"] > 0
        both = together([Later([True, False], sum), Later([], len)])
        assert both.value() == [1, 0]


def test_rows_whose_grades_are_there_keep_their_order_and_wait_for_none():
    made = []

    def rows():
        for number in range(3):
            made.append(number)
            yield Later([True], lambda _, n=number: n)

    for count, row in enumerate(Grader().arrived(rows(), most=8)):
        assert row == count and len(made) == count + 1


def test_closing_ends_processes_in_the_midst_of_a_pair(tmp_path):
    met = tmp_path / "met"
    pool = Grader(1, **CASE)
    slow, queued = pool.accepts("text", "t", f"hang {met}", ""), pool.accepts("text", "t", "later", "")
    while not (met.exists() and met.read_text().endswith("\n")):
        time.sleep(0.01)
    began = time.monotonic()
    pool.close()
    assert time.monotonic() - began < 5 and queued.cancelled() and slow.done()
    assert not alive(int(met.read_text()))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_the_one_that_asks(tmp_path, end):
    """Killed alone in the midst of a pair; a SIGTERM to the whole group leaves the processes to their asker."""
    met = tmp_path / "met"
    program = (
        "import os, signal, time\n"
        "from specexit_jax.data.grading.grader import Grader\n"
        f"pool = Grader(1, 'grading_case:judge', {{'text': 30.0}}, paths=({str(TESTS)!r},))\n"
        f"pool.accepts('text', 't', 'hang {met}', '')\n"
        f"while not (os.path.exists({str(met)!r}) and open({str(met)!r}).read().endswith('\\n')): time.sleep(0.01)\n"
        "print('asked', flush=True)\n"
        "time.sleep(100)\n"
    )
    asker = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=TESTS.parent, start_new_session=True
    )
    assert asker.stdout.readline() == b"asked\n"
    worker = int(met.read_text())
    os.kill(worker, signal.SIGTERM)
    time.sleep(0.1)
    assert alive(worker)
    (os.killpg if end == signal.SIGTERM else os.kill)(asker.pid, end)
    asker.wait(10)
    asker.stdout.close()
    until = time.monotonic() + 5
    while alive(worker) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(worker)
