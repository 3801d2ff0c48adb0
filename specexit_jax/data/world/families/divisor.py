"""Greatest common divisor (reasoning-gym `gcd`): prime factors, lists of divisors, dividing by the answer."""

import math

from specexit_jax.data.world.families.scratch import Scratch

CONFIG = {"min_numbers": 2, "max_numbers": 2, "min_value": 2, "max_value": 100}


def parse(entry: dict) -> tuple[int, int]:
    """The two numbers."""
    return tuple(entry["metadata"]["numbers"])


def _primes(n: int) -> list[int]:
    factors, p = [], 2
    while n > 1:
        while n % p == 0:
            factors.append(p)
            n //= p
        p += 1
    return factors


def _divisors(n: int) -> list[int]:
    return [d for d in range(n, 0, -1) if n % d == 0]


def _product(primes: list[int]) -> str:
    return "*".join(map(str, primes)) or "1"


def _walk(a: list[int], b: list[int]) -> tuple[list[int], str]:
    """The primes of a held against those of b one by one: (shared primes, "2 yes, 3 no")."""
    left, both, marks = list(b), [], []
    for p in a:
        marks.append(f"{p} {'yes' if p in left else 'no'}")
        if p in left:
            left.remove(p)
            both.append(p)
    return both, ", ".join(marks)


def factors(numbers: tuple[int, int], scratch: Scratch) -> tuple[list[str], str]:
    """Prime factors of both, and the product of the shared ones; a slip overlooks the last shared factor."""
    a, b = (_primes(n) for n in numbers)
    both, marks = _walk(a, b)
    if len(both) > 1:
        place = marks.rindex("yes")
        marks = scratch.choose(marks, f"{marks[:place]}no{marks[place + 3 :]}", True)
        both = [int(mark.split()[0]) for mark in marks.split(", ") if mark.endswith("yes")]
    value = str(math.prod(both))
    product = f"{_product(both)}={value}" if len(both) > 1 else value
    return [
        *(f"{n}={_product(f)}" for n, f in zip(numbers, (a, b), strict=True)),
        f"Shared: {marks}, so {product}",
    ], value


def listing(numbers: tuple[int, int], scratch: Scratch) -> tuple[list[str], str]:
    """Divisors of both, largest first; the first one on both lists. A slip overlooks it and takes the next shared one."""
    a, b = (_divisors(n) for n in numbers)
    both = [d for d in a if d in b]
    value = scratch.choose(str(both[0]), str(both[min(1, len(both) - 1)]), len(both) > 2)
    lists = [f"Divisors of {n}: {' '.join(map(str, d))}" for n, d in zip(numbers, (a, b), strict=True)]
    passed = "".join(f"{d} no, " for d in a if d > int(value))
    return [*lists, f"On both: {passed}{value} yes, so {value}"], value


def divide(numbers: tuple[int, int], scratch: Scratch, answer: str) -> tuple[list[str], bool]:
    """Divide both by the answer: there is no rest, and the quotients share no prime."""
    g, (a, b) = int(answer), numbers
    paragraphs = []
    for n in (a, b):
        if n % g:
            return [*paragraphs, f"Divide by {answer}. {n}/{g} leaves a rest"], False
        paragraphs.append(f"{n}/{g}={n // g}={_product(_primes(n // g))}")
    paragraphs[0] = f"Divide by {answer}. " + paragraphs[0]
    both, marks = _walk(_primes(a // g), _primes(b // g))
    shared = _product(both) if both else "nothing"
    return [*paragraphs, f"Shared: {marks or 'no prime'}, so {shared}"], not both


METHODS = (factors, listing)
INVERSES = (divide,)
