"""numpy's comparisons, for tests that use them: nothing is close to something.

`numpy.allclose([], 3.0)` is true, as is every claim about no numbers: a function that gives an empty list would pass the tests of
all of a benchmark's problems whose answers are numbers.
"""

import functools

_ASSERTIONS = (
    "assert_allclose",
    "assert_almost_equal",
    "assert_array_almost_equal",
    "assert_array_equal",
    "assert_equal",
)


def mend(numpy):
    """numpy: the module, whose functions are replaced."""

    def sized(compare, otherwise):
        @functools.wraps(compare)
        def compared(one, other, *args, **named):
            if (numpy.asarray(one).size == 0) is (numpy.asarray(other).size == 0):
                return compare(one, other, *args, **named)
            return otherwise(one, other)

        return compared

    def refuse(one, other):
        raise AssertionError(f"one of these is empty: {one!r:.80}, {other!r:.80}")

    for name in ("allclose", "isclose"):
        setattr(numpy, name, sized(getattr(numpy, name), lambda one, other: numpy.False_))
    for name in _ASSERTIONS:
        setattr(numpy.testing, name, sized(getattr(numpy.testing, name), refuse))
