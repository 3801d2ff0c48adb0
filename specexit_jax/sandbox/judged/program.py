"""The program's process. It runs the program's texts, then serves calls of what they define until the judge ends."""

import json
import os
import sys
import types

from specexit_jax.sandbox.judged.calls import Calls

_DO = {
    "call": lambda value, args, named: value(*args, **named),
    "get": lambda value, args, named: getattr(value, *args),
    "item": lambda value, args, named: value[args[0]],
    "iter": lambda value, args, named: iter(value),
    "next": lambda value, args, named: next(value),
    "len": lambda value, args, named: len(value),
    "bool": lambda value, args, named: bool(value),
    "str": lambda value, args, named: str(value),
}


def load(name, text, names):
    """Runs a text, or its code, as the module `name`, with `names` in it; returns what the module holds."""
    module = types.ModuleType(name)
    module.__dict__.update(names)
    sys.modules[name] = module
    exec(compile(text, name, "exec") if isinstance(text, str) else text, module.__dict__)
    return module.__dict__


def public(names):
    return {name: value for name, value in names.items() if not name.startswith("__")}


def work(arguments):
    """What there is to do; `random` begins as it asks for. arguments: the folders of installed packages."""
    sys.path += arguments
    with open("work.json", "rb") as file:
        found = json.load(file)
    os.unlink("work.json")
    if found["seed"] is not None:
        import random  # programs seldom need it

        random.seed(found["seed"])
    return found


def main(arguments):
    """arguments: descriptors to read questions from and to write answers to, then the folders of installed packages."""
    texts, held = work(arguments[2:])["programs"], {}
    sys.argv[:] = ["program.py"]

    def perform(what, value, args, named):
        if what != "names":
            return _DO[what](value, args, named)
        asked, shared = args  # what the tests call by name, and the classes that both sides know
        calls.codec.shared.update({name: held[name] for name in shared if isinstance(held.get(name), type)})
        return {name: held[name] for name in asked if name in held}

    calls = Calls(*map(int, arguments[:2]), perform, may_keep=lambda value: True)
    for text in texts:
        held |= load("solution", text, public(held))
    calls.serve()
