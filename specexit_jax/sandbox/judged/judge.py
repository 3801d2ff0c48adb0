"""The judge's process. It runs the tests with stand-ins for what the program defines, and reports on a separate channel
that it reached their end."""

import collections.abc
import os
import sys
import types

from specexit_jax.sandbox.judged.arguments import free, looked_at
from specexit_jax.sandbox.judged.calls import Afar, Calls
from specexit_jax.sandbox.judged.closeness import mend
from specexit_jax.sandbox.judged.program import load, public, work

_PURE = frozenset(
    ("abs", "all", "any", "chr", "divmod", "hash", "len", "max", "min", "ord", "pow", "round", "sorted", "sum")
)


def _may_keep(value):
    """Functions and iterators of the tests, which a program can be called with; none that would give it a hold here."""
    if isinstance(value, types.BuiltinFunctionType) and value.__module__ in ("builtins", "os", "posix", "sys"):
        return value.__name__ in _PURE
    if isinstance(value, type) and issubclass(value, type):  # it would make classes here
        return False
    return callable(value) or isinstance(value, collections.abc.Iterator)


def _perform(what, value, args, named):
    if what == "call" and callable(value):
        return value(*args, **named)
    if isinstance(value, collections.abc.Iterator) and what in ("iter", "next"):
        return next(value) if what == "next" else value
    raise TypeError(f"{what} of a {type(value).__name__} of the tests")


def _ask_for(calls, names):
    """The program's own values by name: stand-ins of its functions and classes, copies of its data."""
    found = calls.ask("names", None, (sorted(names), sorted(calls.codec.shared)))
    found = {name: value for name, value in dict(found).items() if name in names}
    for name, value in found.items():
        if type(value) is Afar:
            value.__name__ = name
    return found


def main(arguments):
    """arguments: descriptors to read answers from, to write questions to, and for the verdict; then the folders of packages."""
    told = work(arguments[3:])
    sys.argv[:] = ["tests.py"]
    subject = told["subject"]
    calls = Calls(int(arguments[0]), int(arguments[1]), _perform, _may_keep)
    given = public(load("solution", told["given"], {}))
    calls.codec.shared.update({k: v for k, v in given.items() if isinstance(v, type) and v.__module__ == "solution"})
    tests = compile(told["tests"], "tests", "exec")
    found = _ask_for(calls, free(tests) - set(given) | {subject} - {""})
    if not looked_at(told["tests"], set(found)):
        calls.unseen = frozenset(value._number for value in found.values() if type(value) is Afar)
    sys.modules["solution"].__dict__.update(found)
    if "numpy" in told["tests"]:
        import numpy.testing

        mend(numpy)
    names = {"tests": load("tests", tests, given | found), "program": found[subject] if subject else None}
    end = load("verdict", told["verdict"], names).get("told", "")
    sys.stdout.flush()
    os.write(int(arguments[2]), f"reached {end}".encode())
    calls.close()
