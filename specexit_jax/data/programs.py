"""Programs judged by running them in a sandbox: against the tests of their problem, or against another program."""

import ast
import dataclasses
import functools
import json
import secrets

from specexit_jax.data.extraction import opening, program

_START = """\
import sys, types
def _load(name, text, **names):
    module = types.ModuleType(name)
    module.__dict__.update(names)
    sys.modules[name] = module
    exec(compile(text, name, "exec"), module.__dict__)
    return module.__dict__
_solution = {{}}
for _text in {texts!r}:  # the prompt's imports and helpers, then what the model made of them
    _solution |= _load("solution", _text, **{{k: v for k, v in _solution.items() if not k.startswith("__")}})
_candidate = _solution[{entry_point!r}]
"""
_VERDICT = "_load('tests', {tests!r}, **{{k: v for k, v in _solution.items() if not k.startswith('__')}})['check'](_candidate)\n"
_RECORD = """\
import hashlib, random
random.seed(0)
def _told(value):
    if isinstance(value, bool) or value is None or isinstance(value, (str, bytes)):
        return repr(value)
    if isinstance(value, (int, float)):
        return format(value, ".6g") if isinstance(value, float) and not value.is_integer() else hex(int(value))
    if isinstance(value, (list, tuple)):
        return type(value).__name__ + "(" + ",".join(map(_told, value)) + ")"
    if isinstance(value, (set, frozenset)):
        return "set(" + ",".join(sorted(map(_told, value))) + ")"
    if isinstance(value, dict):
        return "dict(" + ",".join(sorted(_told(k) + ":" + _told(v) for k, v in value.items())) + ")"
    return type(value).__name__
_seen = hashlib.sha256()
_calls = [0]
def _recorded(*args, **kwargs):
    _calls[0] += 1
    try:
        value = _candidate(*args, **kwargs)
        told = _told(value)
    except Exception as error:
        value, told = None, "raised " + type(error).__name__
    _seen.update(told.encode() + bytes(1))
    return value
_load('tests', {tests!r}, **{{k: v for k, v in _solution.items() if not k.startswith('__')}})['check'](_recorded)
"""
_END = "sys.__stdout__.write('\\n{nonce} ' + {result} + '\\n')\nsys.__stdout__.flush()\n"


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
    return _run(code, tests, _VERDICT.format(tests=tests.tests), "''") is not None


@functools.lru_cache(maxsize=4096)
def _outcomes(code: str, tests: CodeTests) -> str | None:
    """How often the program was called and a digest of what came of it; None where it did not end."""
    told = _RECORD.format(tests=_lenient(tests.tests))
    found = _run(code, tests, told, "str(_calls[0]) + ':' + _seen.hexdigest()")
    return None if found is None or found.startswith("0:") else found


def _run(code: str, tests: CodeTests, body: str, result: str) -> str | None:
    """What a script tells at its very end; None where it did not come there, as by an exit from within the program."""
    from specexit_jax.sandbox.run import run_python  # the sandbox is for programs alone

    nonce = secrets.token_hex(8)
    start = _START.format(texts=(opening(tests.prompt), code), entry_point=tests.entry_point)
    outcome = run_python(start + body + _END.format(nonce=nonce, result=result))
    if outcome.status != "passed":
        return None
    ends = [line for line in outcome.stdout.splitlines() if line.startswith(f"{nonce} ")]
    return ends[-1].removeprefix(f"{nonce} ") if ends else None


class _Lenient(ast.NodeTransformer):
    """Assertions and calls become tries, so that every input is reached whatever came of those before it."""

    def visit_Assert(self, node: ast.Assert) -> ast.Try:
        return self._tried(ast.Expr(node.test))

    def visit_Expr(self, node: ast.Expr) -> ast.Try:
        return self._tried(node)

    def _tried(self, node: ast.stmt) -> ast.Try:
        return ast.Try([node], [ast.ExceptHandler(ast.Name("Exception", ast.Load()), None, [ast.Pass()])], [], [])


def _lenient(tests: str) -> str:
    return ast.unparse(ast.fix_missing_locations(_Lenient().visit(ast.parse(tests))))
