"""Values of Python as JSON and back, for two processes of which one does not trust the other.

Data is carried by value: the built-in types, some of the standard library's and numpy's, and instances of classes that both
processes took from the problem's statement. An instance of a subclass is carried as the built-in type that it extends, so that
no comparison of its own comes along. All else stays where it is, and is known to the other process by a number.
"""

import collections

_PLAIN = frozenset({type(None), bool, str, float})
_BIG = 1 << 4096  # hexadecimal from here on: decimal takes quadratic time, and Python refuses it in the end
_TYPES = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    bytearray,
    tuple,
    list,
    dict,
    set,
    frozenset,
    range,
    object,
    type(None),
)
_NAMED = {kind.__name__: kind for kind in _TYPES}
_DICTS = {"Counter": collections.Counter, "OrderedDict": collections.OrderedDict, "dict": dict}
_SCALARS = ((int, int.__index__), (float, float.__float__), (str, lambda value: "".join(str.__iter__(value))))
_LIBRARY = {  # what makes such a value again
    ("fractions", "Fraction"): lambda value: (value.numerator, value.denominator),
    ("decimal", "Decimal"): lambda value: (str(value),),
    ("datetime", "date"): lambda value: (value.isoformat(),),
    ("datetime", "datetime"): lambda value: (value.isoformat(),),
    ("datetime", "time"): lambda value: (value.isoformat(),),
    ("datetime", "timedelta"): lambda value: (value.days, value.seconds, value.microseconds),
}
_SINGLE = {"Ellipsis": Ellipsis, "NotImplemented": NotImplemented}
_ARRAYS = "biufcUSO"  # kinds of numpy's types that hold no addresses


class Refused(Exception):
    """The received data is no value, or none that this process accepts."""


class Codec:
    """Converts values to what `json` can write, and back.

    shared: classes by name, of which instances are carried by value. keep(value) → the number of a value that stays here, or
    raises TypeError; give(number) → that value; take(number, kind) → a stand-in for a value that stayed there, whose class is
    called `kind`; number_of(value) → that number where the value is such a stand-in, else None.
    """

    def __init__(self, shared, keep, give, take, number_of):
        self.shared = shared
        self._keep, self._give, self._take, self._number_of = keep, give, take, number_of

    def encode(self, value):
        """Raises RecursionError for what is nested too deeply, or holds itself; TypeError for what can neither go nor stay."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is int:
            return value if -_BIG < value < _BIG else ["int", hex(value)]
        if kind is list or kind is tuple:
            return [kind.__name__, self._told(value)]
        if (number := self._number_of(value)) is not None:
            return ["yours", number]
        if self.shared.get(kind.__name__) is kind:
            told = self._shared_one(value, kind)
        elif kind.__module__ == "numpy":
            told = self._of_numpy(value)
        elif tell := _LIBRARY.get((kind.__module__, kind.__name__)):
            told = ["library", kind.__module__, kind.__name__, *map(self.encode, tell(value))]
        else:
            told = self._extended(value)
        return ["mine", self._keep(value), kind.__name__] if told is None else told

    def _told(self, values):
        values = list(values)
        kinds = set(map(type, values))
        if kinds <= _PLAIN or (kinds == {int} and -_BIG < min(values) and max(values) < _BIG):
            return values  # as they are
        return [self.encode(value) for value in values]

    def _pairs(self, value):
        return [[self.encode(key), self.encode(other)] for key, other in dict.items(value)]

    def _shared_one(self, value, kind):
        if isinstance(value, tuple):
            return ["record", kind.__name__, self._told(tuple.__iter__(value))]
        if hasattr(kind, "__members__"):
            return ["member", kind.__name__, value.name]
        return ["instance", kind.__name__, self._pairs(vars(value))] if hasattr(value, "__dict__") else None

    def _of_numpy(self, value):
        if type(value).__name__ == "ndarray" and value.dtype.kind in _ARRAYS:
            return ["array", value.dtype.str, list(value.shape), self._told(value.ravel().tolist())]
        plain = value.item() if hasattr(value, "item") else value
        return None if type(plain).__module__ == "numpy" else self.encode(plain)

    def _extended(self, value):
        """A built-in value, or one of a class that extends its type; None for others."""
        if isinstance(value, type):
            return ["type", value.__name__] if _NAMED.get(value.__name__) is value else None
        for name, kind in _DICTS.items():
            if isinstance(value, kind):
                return ["dict", name, self._pairs(value)]
        for kind in (list, tuple, set, frozenset):
            if isinstance(value, kind):
                return [kind.__name__, self._told(kind.__iter__(value))]
        for kind, plain in _SCALARS:
            if isinstance(value, kind):
                return self.encode(plain(value))
        if isinstance(value, bytes | bytearray):
            kind = bytes if isinstance(value, bytes) else bytearray
            return [kind.__name__, kind.decode(value, "latin-1")]
        if isinstance(value, complex):
            return ["complex", complex.real.__get__(value), complex.imag.__get__(value)]
        if isinstance(value, range):
            return ["range", value.start, value.stop, value.step]
        if isinstance(value, collections.deque):
            return ["deque", self._told(collections.deque.__iter__(value)), value.maxlen]
        return next((["single", name] for name, one in _SINGLE.items() if value is one), None)

    def decode(self, data):
        """Raises Refused, or whatever wrong data raises: nothing of it is to be believed then."""
        if type(data) is dict:
            raise Refused("an object of JSON is no value")
        if type(data) is not list:
            return data
        if type(data[0]) is not str or data[0] not in _READERS:
            raise Refused(f"no value begins with {data[0]!r:.40}")
        return _READERS[data[0]](self, *data[1:])

    def _list(self, items):
        if type(items) is not list:
            raise Refused("items that are no list")
        return list(map(self.decode, items)) if list in set(map(type, items)) else list(items)

    def _dict(self, name, pairs):
        made = _DICTS[name]()
        for key, value in pairs:
            made[self.decode(key)] = self.decode(value)
        return made

    def _record(self, name, items):
        return tuple.__new__(self.shared[name], self._list(items))

    def _instance(self, name, pairs):
        kind = self.shared[name]
        made = object.__new__(kind)
        for key, value in self._dict("dict", pairs).items():
            if callable(getattr(kind, key, None)):
                raise Refused(f"a method {key!r:.40} of its own")
            made.__dict__[key] = value
        return made

    def _array(self, dtype, shape, items):
        import numpy  # only where one came

        if numpy.dtype(dtype).kind not in _ARRAYS:
            raise Refused(f"an array of {dtype!r:.40}")
        flat = numpy.empty(len(items), dtype)
        flat[:] = self._list(items)
        return flat.reshape(shape)

    def _library(self, module, name, *parts):
        if (module, name) not in _LIBRARY:
            raise Refused(f"a {name!r:.40} of {module!r:.40}")
        kind = getattr(__import__(module), name)
        return getattr(kind, "fromisoformat", kind)(*map(self.decode, parts))


_READERS = {
    "int": lambda _, digits: int(digits, 16),
    "complex": lambda _, real, imaginary: complex(real, imaginary),
    "bytes": lambda _, text: text.encode("latin-1"),
    "bytearray": lambda _, text: bytearray(text.encode("latin-1")),
    "list": Codec._list,
    "tuple": lambda codec, items: tuple(codec._list(items)),
    "set": lambda codec, items: set(codec._list(items)),
    "frozenset": lambda codec, items: frozenset(codec._list(items)),
    "dict": Codec._dict,
    "deque": lambda codec, items, most: collections.deque(codec._list(items), most),
    "range": lambda _, *ends: range(*ends),
    "type": lambda _, name: _NAMED[name],
    "single": lambda _, name: _SINGLE[name],
    "library": Codec._library,
    "array": Codec._array,
    "record": Codec._record,
    "member": lambda codec, kind, name: codec.shared[kind].__members__[name],
    "instance": Codec._instance,
    "yours": lambda codec, number: codec._give(number),
    "mine": lambda codec, number, kind: codec._take(number, kind),
}
