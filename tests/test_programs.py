"""Programs in answers: found, run against tests, and compared with one another."""

import pytest
from programs_case import ProgramResult, run_trial, unboxed

from specexit_jax.data.checkers import accepts, agrees
from specexit_jax.data.extraction import program
from specexit_jax.data.programs import CodeTests, passes, require_sandbox, same_outcomes

PROMPT = 'import math\n\n\ndef root(n: int) -> float:\n    """ The square root of n."""\n'
CHECK = """\
def check(candidate):
    assert candidate(4) == 2
    assert abs(candidate(2) - 1.41421356) < 1e-6
    for n in (9, 16):
        assert candidate(n) ** 2 == n, "a square"
"""
REFERENCE = CodeTests(PROMPT, CHECK, "root").reference()


@pytest.fixture(autouse=True)
def ran(monkeypatch):
    """The programs that were run, in a plain child process."""
    programs = []

    def run(trial, limits=None, stdin=""):
        programs.append(trial)
        return run_trial(trial)

    unboxed(monkeypatch, trial=run)
    return programs


def answer(expression: str, before: str = "", after: str = "") -> str:
    return f"```python\n{before}\ndef root(n):\n    return {expression}\n{after}```"


def test_right_and_wrong():
    assert passes(answer("math.sqrt(n)"), REFERENCE)
    assert not passes(answer("n / 2"), REFERENCE)


@pytest.mark.parametrize("way", ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit"])
def test_leaving_before_the_tests_is_not_passing_them(way):
    assert not passes(answer("math.sqrt(n)", after=f"{way}\n"), REFERENCE)


def test_what_a_program_prints_is_not_what_the_tests_tell():
    assert not passes(answer("n / 2", before="print('passed')"), REFERENCE)
    assert passes(answer("math.sqrt(n)", before="print('failed', end='')"), REFERENCE)


def test_programs_are_compared_by_what_they_do():
    """Two programs with the same error agree. Two with different errors do not, although they fail the same assertions."""
    right, other, half, third = (answer(text) for text in ("math.sqrt(n)", "n ** 0.5", "n / 2", "n / 3"))
    assert same_outcomes(right, other, REFERENCE)
    assert same_outcomes(half, answer("0.5 * n"), REFERENCE)
    assert not same_outcomes(half, third, REFERENCE)
    assert not same_outcomes(right, half, REFERENCE)


def test_what_the_tests_expect_decides_nothing():
    wrong = CodeTests(PROMPT, CHECK.replace("== 2", "== 77").replace("1.41421356", "3"), "root").reference()
    assert same_outcomes(answer("math.sqrt(n)"), answer("n ** 0.5"), wrong)
    assert not same_outcomes(answer("n / 2"), answer("n / 3"), wrong)


def test_inputs_behind_a_failed_assertion_count():
    early = answer("2 if n == 4 else 7 if n < 10 else 0")
    late = answer("2 if n == 4 else 7 if n < 10 else 1")
    assert not same_outcomes(early, late, REFERENCE)


def test_raising_is_an_outcome_and_not_ending_is_none():
    assert same_outcomes(answer("1 // 0"), answer("n // 0"), REFERENCE)
    assert not same_outcomes(answer("1 // 0"), answer("[][n]"), REFERENCE)
    left = answer("__import__('sys').exit()")
    assert not same_outcomes(left, answer("__import__('sys').exit(0)"), REFERENCE)
    assert same_outcomes(left, left, REFERENCE)  # the same program, whatever it does


def test_an_answer_without_a_program_agrees_with_none(ran):
    assert not same_outcomes("I cannot.", "I cannot.", REFERENCE)
    assert not passes("I cannot.", REFERENCE) and not ran


def test_agreement_is_with_the_models_own_answer():
    assert agrees("code", "humaneval", answer("n / 2"), answer("0.5 * n"), REFERENCE)
    assert not accepts("code", "humaneval", answer("n / 2"), REFERENCE)
    assert agrees("math", "gsm8k", "\\boxed{0.5}", "It is 1/2.", "3")
    assert not agrees("math", "gsm8k", "3", "It is 1/2.", "3")
    assert not agrees("math", "gsm8k", "3", None, "3") and not agrees("code", "any", None, "3", REFERENCE)


def test_a_program_is_run_once(ran):
    for _ in range(3):
        passes(answer("n ** (1 / 2)"), REFERENCE)
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("text", "kept", "left"),
    [
        ("```python\nx = 1\ndef root(n):\n    return 1\n```\n```python\nroot(3)\n```", "return 1", "root(3)"),
        (
            "```python\ndef one():\n    return 1\none()\n```\n```python\ndef root(n):\n    return one()\n```",
            "def one",
            "\none()",
        ),
        ("So:\ndef root(n):\n    return 1\nThat is all.", "return 1", "That"),
        ("```\nreturn n\n```", PROMPT.strip(), "```"),
        (
            "```python\nx = root(4)\ny = 2\nz = input()\nw = x + 1\n```\n```python\ndef root(n):\n    return y\n```",
            "y = 2",
            "root(4)",
        ),
        ("```python\nx = root(4)\nw = x + 1\n```\n```python\ndef root(n):\n    return 1\n```", "return 1", "w ="),
        ("```python\nx = sum([1])\n```\n```python\ndef root(n):\n    return x\n```", "except Exception", "```"),
        (
            "```python\ndef root(n):\n    return two()\n```\n```python\ndef two():\n    return 2\nprint(two())\n```",
            "return 2",
            "print",
        ),
        ("```python\ndef root(n):\n    return 1\n```\n```python\ndef other():\n    return 2\n```", "return 1", "other"),
        (
            "```python\nimport math\n```\n```python\nfrom __future__ import annotations\ndef root(n):\n    return 1\n```",
            "from __future__ import annotations\n\nimport math",
            "```",
        ),
        ('```python\ndef root(n):\n    s = """\n```\n"""\n    return len(s)\n```\nDone.', "return len(s)", "Done"),
        ("```python\ndef root(n):\n    return 1\n```\n```python\ndef root(n): ...\n```", "return 1", "..."),
        ("```python\ndef root(n):\n    return (1\n```\nIt's done.\n```\n2.0\n```", "return (1", "done"),
        ("> ```py\n> def root(n):\n>     return 1\n> ```\nThat.", "    return 1", ">"),
        ("found = 1\n    return found", "\n    found = 1\n    return found", "```"),  # stripped of its first margin
    ],
)
def test_programs_are_found(text, kept, left):
    found = program(text, PROMPT, "root")
    assert kept in found and left not in found
    if kept != "return (1":  # which was no program to begin with
        compile(found, "root", "exec")


@pytest.mark.parametrize(
    "text", ["", "No.", "```python\nprint(3)\n```", "```python\n```", "def other(n):\n    return 1"]
)
def test_no_program(text):
    found = program(text, PROMPT, "root")
    assert found is None


def test_a_machine_that_cannot_isolate_is_refused(monkeypatch):
    require_sandbox()

    def refuse(text, limits=None, stdin=""):
        raise RuntimeError("no namespaces here")

    unboxed(monkeypatch, refuse)
    with pytest.raises(ValueError, match="runs what models write, in a sandbox: no namespaces here"):
        require_sandbox()
    unboxed(monkeypatch, trial=lambda trial, limits=None, stdin="": ProgramResult("timeout", ""))
    assert not passes(answer("n ** 0.50"), REFERENCE)
