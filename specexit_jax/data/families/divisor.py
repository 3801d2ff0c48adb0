"""Greatest common divisor (reasoning-gym `gcd`): prime factors, lists of divisors, dividing by the answer."""

import math

from specexit_jax.data.scratch import Scratch

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


def _shared(a: list[int], b: list[int]) -> list[int]:
    left, both = list(b), []
    for p in a:
        if p in left:
            left.remove(p)
            both.append(p)
    return both


def factors(numbers: tuple[int, int], scratch: Scratch) -> tuple[list[str], str]:
    """Prime factors of both, and the product of the shared ones; a slip loses a shared factor."""
    a, b = (_primes(n) for n in numbers)
    both = _shared(a, b)
    fewer = both[:-1] if both else both
    both = [int(p) for p in scratch.choose(" ".join(map(str, both)), " ".join(map(str, fewer)), len(both) > 1).split()]
    paragraphs = [f"{n}={'*'.join(map(str, f))}" for n, f in zip(numbers, (a, b), strict=True)]
    if not both:
        return [*paragraphs, "No prime is shared"], "1"
    value = math.prod(both)
    product = f"{'*'.join(map(str, both))}={value}" if len(both) > 1 else str(value)
    return [*paragraphs, f"Shared: {product}"], str(value)


def listing(numbers: tuple[int, int], scratch: Scratch) -> tuple[list[str], str]:
    """Divisors of both, largest first; the first one on both lists. A slip takes the next shared one."""
    a, b = (_divisors(n) for n in numbers)
    both = [d for d in a if d in b]
    value = scratch.choose(str(both[0]), str(both[min(1, len(both) - 1)]), len(both) > 2)
    lists = [f"Divisors of {n}: {' '.join(map(str, d))}" for n, d in zip(numbers, (a, b), strict=True)]
    return [*lists, f"Largest on both: {value}"], value


def divide(numbers: tuple[int, int], scratch: Scratch, answer: str) -> tuple[list[str], bool]:
    """Divide both by the answer: there is no rest, and the quotients share nothing."""
    g, (a, b) = int(answer), numbers
    paragraphs = []
    for n in (a, b):
        if n % g:
            return [*paragraphs, f"Divide by {answer}. {n}/{g} leaves a rest"], False
        paragraphs.append(f"{n}/{g}={n // g}")
    paragraphs[0] = f"Divide by {answer}. " + paragraphs[0]
    rest = math.gcd(a // g, b // g)
    return [*paragraphs, f"{a // g} and {b // g} share {'nothing' if rest == 1 else rest}"], rest == 1


METHODS = (factors, listing)
INVERSES = (divide,)
