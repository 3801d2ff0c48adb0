"""Programs judged by running them in a sandbox: against the tests of their problem, or against another program."""

import ast
import dataclasses
import functools
import json

from specexit_jax.data.extraction import opening, program

_VERDICT = "tests['check'](program)\n"
_RECORD = """\
import hashlib

def tell(value):
    if isinstance(value, bool) or value is None or isinstance(value, (str, bytes)):
        return repr(value)
    if isinstance(value, (int, float)):
        return format(value, ".6g") if isinstance(value, float) and not value.is_integer() else hex(int(value))
    if isinstance(value, (list, tuple)):
        return type(value).__name__ + "(" + ",".join(map(tell, value)) + ")"
    if isinstance(value, (set, frozenset)):
        return "set(" + ",".join(sorted(map(tell, value))) + ")"
    if isinstance(value, dict):
        return "dict(" + ",".join(sorted(tell(k) + ":" + tell(v) for k, v in value.items())) + ")"
    return "object " + getattr(value, "__name__", type(value).__name__)

calls, seen = 0, hashlib.sha256()

def recorded(*args, **named):
    global calls
    calls += 1
    try:
        value = program(*args, **named)
        text = tell(value) if value is not None else "changed " + tell([args, named])
    except Exception as error:
        value, text = None, "raised " + type(error).__name__
    seen.update(text.encode(errors="surrogatepass") + bytes(1))
    return value

tests["check"](recorded)
told = f"{calls}:{seen.hexdigest()}"
"""


@dataclasses.dataclass(frozen=True)
class CodeTests:
    """What the reference of a code problem holds, as JSON: the prompt that the model was to complete, a module with
    `check(candidate)`, and the name of the function (HumanEval's columns)."""

    prompt: str
    tests: str
    entry_point: str

    def reference(self) -> str:
        return json.dumps(dataclasses.asdict(self))


def require_sandbox() -> None:
    """Raise ValueError, before any work, where this machine cannot isolate the programs of models."""
    from specexit_jax.sandbox.run import run_python

    try:
        run_python("pass")
    except RuntimeError as error:
        raise ValueError(f"The checker 'code' runs what models write, in a sandbox: {error}") from error


def passes(answer: str, reference: str) -> bool:
    """Whether the program in the answer passes the tests.

    Raises RuntimeError where this machine cannot isolate programs.
    """
    tests = CodeTests(**json.loads(reference))
    code = program(answer, tests.prompt, tests.entry_point)
    return code is not None and _passed(code, tests)


def same_outcomes(answer: str, own: str, reference: str) -> bool:
    """Whether the programs in two answers do the same on every input of the tests, be it right or wrong.

    Both are called with what the tests call a program with; compared are the values that they return (floats to six
    digits; of objects the type) and the kinds of exceptions that they raise. What the tests expect decides nothing: their
    assertions are evaluated, never asserted. A program that did not come to its end agrees with its like alone.
    """
    tests = CodeTests(**json.loads(reference))
    codes = [program(text, tests.prompt, tests.entry_point) for text in (answer, own)]
    if None in codes:
        return False
    if codes[0] == codes[1]:
        return True
    found, other = (_outcomes(code, tests) for code in codes)
    return found is not None and found == other


@functools.lru_cache(maxsize=4096)
def _passed(code: str, tests: CodeTests) -> bool:
    return _told(code, tests, tests.tests, _VERDICT) is not None


@functools.lru_cache(maxsize=4096)
def _outcomes(code: str, tests: CodeTests) -> str | None:
    """The number of calls and a digest of their results; None if the run did not end."""
    found = _told(code, tests, _lenient(tests.tests), _RECORD, seed=0)
    return None if found is None or found.startswith("0:") else found


def _told(code: str, tests: CodeTests, text: str, verdict: str, seed: int | None = None) -> str | None:
    """The verdict told at the end of the run; None if the end was not reached, for example after an exit inside the
    program."""
    from specexit_jax.sandbox.run import Trial, run_trial  # the sandbox is for programs alone

    # The prompt's imports and helpers: the program may use them, the tests have their own.
    before = opening(tests.prompt)
    programs = (before, code) if before else (code,)
    outcome = run_trial(Trial(programs, text, given=before, subject=tests.entry_point, verdict=verdict, seed=seed))
    return outcome.told if outcome.status == "passed" else None


class _Lenient(ast.NodeTransformer):
    """Wraps assertions and calls in `try`, so that every input is reached even if an earlier one fails."""

    def visit_Assert(self, node: ast.Assert) -> ast.Try:
        return self._tried(ast.Expr(node.test))

    def visit_Expr(self, node: ast.Expr) -> ast.Try:
        return self._tried(node)

    def _tried(self, node: ast.stmt) -> ast.Try:
        return ast.Try([node], [ast.ExceptHandler(ast.Name("Exception", ast.Load()), None, [ast.Pass()])], [], [])


def _lenient(tests: str) -> str:
    return ast.unparse(ast.fix_missing_locations(_Lenient().visit(ast.parse(tests))))
