"""Remote calls between two processes as lines of JSON: one process uses functions and objects of the other.

A call is ["do", what, number of its object, arguments, named arguments, whether changes of them are to be told], answered by
["done", value, changed arguments], ["raised", names of the exception's class and of those that it extends, its arguments, its
text], or ["end"] of an iteration. Before it answers, the other side may call back. If the other side is gone or breaks
this form, this process ends at once, without an exception that the tests could handle.
"""

import builtins
import json
import os

from specexit_jax.sandbox.judged.changes import restore
from specexit_jax.sandbox.judged.values import Codec, Refused

_ENDS = (StopIteration, StopAsyncIteration)  # they would end a loop of the tests as if all had been seen
_OF_TYPE = {"len": int, "bool": bool, "str": str}


def leave(why):
    os.write(2, f"{why}\n".encode(errors="replace"))
    os._exit(1)


class Afar:
    """A stand-in for a function, iterator or object of the other process. It equals only itself, and has no arithmetic
    or order."""

    __slots__ = ("__name__", "_calls", "_number")

    def __init__(self, calls, number, name):
        self._calls, self._number, self.__name__ = calls, number, name

    def __call__(self, *args, **named):
        return self._calls.ask("call", self._number, args, named)

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(f"{name} of what is in the other process")
        return self._calls.ask("get", self._number, (name,))

    def __getitem__(self, key):
        return self._calls.ask("item", self._number, (key,))

    def __iter__(self):
        return self._calls.ask("iter", self._number)

    def __next__(self):
        return self._calls.ask("next", self._number)

    def __len__(self):
        return self._calls.ask("len", self._number)

    def __bool__(self):
        return self._calls.ask("bool", self._number)

    def __str__(self):
        return self._calls.ask("str", self._number)

    def __repr__(self):
        return f"<{self.__name__} in the other process>"


class Calls:
    """One end of the connection.

    perform(what, value, arguments, named arguments) does what the other side asks for; may_keep(value) → whether that side may
    learn of a value that is not carried. reading, writing: descriptors.
    """

    def __init__(self, reading, writing, perform, may_keep):
        self._reader, self._writing = os.fdopen(reading, "rb", 1 << 16), writing
        self._perform, self._may_keep = perform, may_keep
        self._kept, self._numbers, self._afar = [], {}, {}
        self.codec = Codec({}, self._keep, self._given, self._taken, self._number_of)
        self.unseen = frozenset()  # numbers of functions whose changes of arguments nobody looks at

    def _keep(self, value):
        if id(value) not in self._numbers:
            if not self._may_keep(value):
                raise TypeError(f"a value of {type(value).__name__} cannot be carried to the other process")
            self._numbers[id(value)] = len(self._kept)
            self._kept.append(value)
        return self._numbers[id(value)]

    def _given(self, number):
        if type(number) is not int or not 0 <= number < len(self._kept):
            raise Refused(f"no value has the number {number!r:.40}")
        return self._kept[number]

    def _taken(self, number, kind):
        if type(number) is not int or type(kind) is not str:
            raise Refused("a stand-in without number or name")
        return self._afar.setdefault(number, Afar(self, number, kind))

    def _number_of(self, value):
        return value._number if type(value) is Afar else None

    def ask(self, what, number, args=(), named=None):
        """What the other side answers; raises what it raised. Arguments that it changed are changed here."""
        named = named or {}
        told = self.codec.encode(list(args))[1], {key: self.codec.encode(value) for key, value in named.items()}
        self._send(["do", what, number, *told, number not in self.unseen])
        while (said := self._receive())[0] == "do":
            self.answer(said)
        try:
            value, error = self._believed(what, said, args, named, number not in self.unseen)
        except BaseException as wrong:
            leave(f"an answer that is none: {type(wrong).__name__}: {wrong}")
        if error is not None:
            raise error
        return value

    def _believed(self, what, said, args, named, seen):
        """(value, None) or (None, exception to raise)."""
        if said == ["end"] and what == "next":
            return None, StopIteration()
        if said[0] == "raised":
            return None, self._error(*said[1:])
        form, told, changed = said
        if form != "done":
            raise Refused(f"{form!r:.40}")
        value = args[told[1]] if type(told) is list and told[0] == "argument" else self.codec.decode(told)
        if what in _OF_TYPE and type(value) is not _OF_TYPE[what]:
            raise Refused(f"{what} gave {type(value).__name__}")
        if changed and not seen:
            raise Refused("changes that nobody asked for")
        for key, new in changed:
            restore((named if type(key) is str else args)[key], self.codec.decode(new))
        return value, None

    def _error(self, names, args, text):
        """Of the nearest class that is known here; none that ends a loop."""
        for name in names:
            kind = self.codec.shared.get(name) or getattr(builtins, name, None)
            if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _ENDS):
                try:
                    return kind(*self.codec.decode(args))
                except TypeError:  # it is made of something else
                    break
        return RuntimeError(f"{names[0]}: {text}")

    def close(self):
        """No more questions: the other side may end."""
        self._reader.close()
        os.close(self._writing)

    def serve(self):
        """Until the other side ends."""
        while said := self._receive(may_end=True):
            self.answer(said)

    def answer(self, said):
        """Does what is asked for and says what came of it; what is no Exception goes through."""
        try:
            form, what, number, args, named, see = said
            if form != "do":
                raise Refused(f"{form!r:.40}")
            values = self.codec.decode(["list", list(args)])
            by_name = {key: self.codec.decode(value) for key, value in named.items()}
            target = None if number is None else self._given(number)
        except BaseException as wrong:
            leave(f"a question that is none: {type(wrong).__name__}: {wrong}")
        try:
            value = self._perform(what, target, values, by_name)
            same = (i for i, one in enumerate(values) if see and one is value and type(args[i]) is list)
            place = next(same, None)
            told = self.codec.encode(value) if place is None else ["argument", place]
            changed = self._changed([*enumerate(values), *by_name.items()], args, named) if see else []
            answer = json.dumps(["done", told, changed])
        except StopIteration as error:
            answer = json.dumps(["end"] if what == "next" else self._raised(error))
        except Exception as error:
            answer = json.dumps(self._raised(error))
        self._write(answer)

    def _changed(self, values, args, named):
        found = []
        for key, value in values:
            old = (named if type(key) is str else args)[key]
            if type(old) is list:
                new = self.codec.encode(value)
                if json.dumps(new) != json.dumps(old):
                    found.append([key, new])
        return found

    def _raised(self, error):
        known = self.codec.shared
        names = [
            kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins" or kind.__name__ in known
        ]
        try:
            text, args = str(error), self.codec.encode(tuple(error.args))
            json.dumps(args)
        except Exception as other:
            text, args = f"{type(error).__name__}, and of its text {type(other).__name__}", ["tuple", []]
        return ["raised", names, args, text]

    def _send(self, message):
        self._write(json.dumps(message))

    def _write(self, line):
        rest = memoryview(line.encode() + b"\n")
        try:
            while rest:
                rest = rest[os.write(self._writing, rest) :]
        except OSError as error:
            leave(f"the other process cannot be told: {error}")

    def _receive(self, may_end=False):
        try:
            line = self._reader.readline()
            if not line and may_end:
                return None
            said = json.loads(line) if line.endswith(b"\n") else None
        except BaseException as wrong:
            leave(f"no line of JSON: {type(wrong).__name__}: {wrong}")
        if type(said) is not list or not said:
            leave("the other process left before it had answered" if not line else "a line that says nothing")
        return said
