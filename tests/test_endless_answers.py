"""Answers that repeat themselves until their budget is spent: graded as wrong, quickly, and without an error."""

import functools
import gc
import threading
import time

import pytest

from specexit_jax.data.checkers import accepts
from specexit_jax.data.limits import within

LOOPS = {
    "digits": "1",
    "number words": "one hundred and ",
    "hundreds": "hundred ",
    "groups": "1,000,",
    "braces": "{",
    "boxes": "\\boxed{",
    "roots": "\\sqrt(",
    "towers": "9^{9^{",
    "answers": "the answer is ",
    "fields": "'answer': ",
    "options": "A is correct, or ",
    "dashes": "— ",
    "lines": "\n",
    "答案是": "答案是",
}
REFERENCES = {"math": "12", "choice": "B", "text": "Paris"}


@pytest.fixture(scope="module", autouse=True)
def _imported():
    accepts("math", "any", "1", "2")


@pytest.mark.parametrize("checker", REFERENCES)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_is_wrong_and_soon_so(checker, loop):
    answer = "The answer is " + LOOPS[loop] * (200_000 // len(LOOPS[loop]))
    start = time.process_time()
    assert accepts(checker, "any", answer, REFERENCES[checker]) is False
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    "formula",
    [
        "9^{9^{9^{9}}}",
        "99999999!",
        "\\sum_{n=1}^{10^9} n^n",
        "(x+1)^{99999}(x-1)^{99999}",
        "\\frac{1}{0}",
        "0^{-1}",
        "\\binom{10^9}{10^8}",
    ],
)
def test_a_formula_that_no_computation_ends_is_wrong(formula):
    start = time.process_time()
    assert accepts("math", "any", f"\\boxed{{{formula}}}", "x+12") is False
    assert accepts("math", "any", f"\\boxed{{{formula}}}", "12") is False
    assert time.process_time() - start < 6


def _spin():
    while True:
        pass


@pytest.mark.parametrize("own_thread", [False, True])
def test_a_limit_holds_on_every_thread(own_thread):
    found = []

    def run():
        found.extend((within(0.05, _spin, "late"), within(5, lambda: "soon", "late")))

    if own_thread:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    else:
        run()
    assert found == ["late", "soon"]


def _busy(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def _swallow():
    """Catches every exception, like some third-party code."""
    for _ in range(3):
        try:
            _spin()
        except BaseException:
            continue
    return "swallowed"


def _collect():
    """Spends its time in callbacks of the garbage collector, where Python drops every exception."""

    def callback(phase, info):
        if phase == "start" and threading.get_ident() == thread:
            _busy(0.02)

    thread = threading.get_ident()
    gc.callbacks.append(callback)
    try:
        while True:
            gc.collect(0)
            _busy(0.002)
    finally:
        gc.callbacks.remove(callback)


class _Dropping:
    def __del__(self):
        _busy(0.02)


def _drop():
    while True:
        _Dropping()
        _busy(0.002)


@pytest.mark.parametrize("compute", [_collect, _drop])
def test_a_limit_is_not_lost_where_python_drops_exceptions(compute):
    start = time.process_time()
    assert within(0.05, compute, "late") == "late"
    assert time.process_time() - start < 5


def test_a_limit_that_is_swallowed_comes_again():
    start = time.process_time()
    assert within(0.05, _swallow, "late") in ("late", "swallowed")
    assert time.process_time() - start < 5


def test_a_limit_is_taken_back_where_the_computation_ends_with_it():
    for late in range(200):
        assert within(0.002, functools.partial(_busy, 0.0015 + late % 10 * 0.0001), "late") in (None, "late")
    time.sleep(0.01)


def test_a_limit_holds_where_its_watch_starts_slowly(monkeypatch):
    class Slow(threading.Thread):
        def start(self):
            super().start()
            _busy(0.05)

    monkeypatch.setattr(threading, "Thread", Slow)
    assert within(0.002, lambda: "soon", "late") == "late"
    _busy(0.3)  # nothing comes afterwards


def test_a_limit_leaves_errors_alone():
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 / 0, None)
