"""Two formulas that are equal as mathematics: math-verify's parser and comparison, on whole formulas alone."""

import functools
import importlib
import logging
import re
from fractions import Fraction
from typing import Any

from specexit_jax.data.constants import TooLarge, exact, near, repeating, stands_for, written

_MOST = 400  # characters of a formula
_POINTS = (Fraction(7, 5), Fraction(13, 11), Fraction(-17, 19), Fraction(23, 7))
_TEXTUAL = re.compile(r"\d_|\d\s*:\s*\d")  # a base or a ratio is the same only as written


def load() -> None:
    """Import what parses and compares, which takes seconds that no time limit should count."""
    importlib.import_module("math_verify")
    for name in ("math_verify.parser", "math_verify.grader"):  # a formula without an end is a wrong answer, and no news
        logging.getLogger(name).setLevel(logging.ERROR)


def equal_formulas(reference: str, answer: str, factor: Fraction = Fraction(1)) -> bool:
    """Whether two formulas in LaTeX have the same value, `factor` times that of the answer; an unread one has none."""
    if _TEXTUAL.search(reference) or _TEXTUAL.search(answer):
        return _fraction(bare(reference)) == _fraction(bare(answer))
    if factor == 1 and bare(reference) == bare(answer):
        return True
    wanted, found = parsed(reference), parsed(answer)
    if wanted is None or found is None:
        return False
    constants = _is_constant(wanted), _is_constant(found)
    if all(constants):
        return _equal_constants(wanted, found, written(reference), written(answer), factor)
    if factor != 1 or any(constants):
        return False
    return verified(wanted, found) and _alike(wanted, found)


def _fraction(latex: str) -> str:
    """A ratio of two numbers as their fraction, as written."""
    latex = re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", r"\1/\2", latex)
    return re.sub(r"^(\d+):(\d+)$", r"\1/\2", latex)


def equal_matrices(reference: str, answer: str) -> bool:
    """Whether two formulas in LaTeX have the same matrix as their value (`\\frac12 M`)."""
    import sympy

    wanted, found = (getattr(parsed(latex), "doit", lambda: None)() for latex in (reference, answer))
    if not all(isinstance(one, sympy.MatrixBase) for one in (wanted, found)) or wanted.shape != found.shape:
        return False
    return bool((wanted - found).applyfunc(sympy.simplify).is_zero_matrix)


def bare(latex: str) -> str:
    """A formula without spaces and braces that do not matter, to compare as written."""
    latex = re.sub(r"\s", "", latex)
    latex = re.sub(r"([\^_])\{(\w)\}", r"\1\2", re.sub(r"_\{(\w+)\}", r"_\1", latex))
    return re.sub(r"[{}()]", "", latex) if re.fullmatch(r"\(?\w*\)?", latex) else latex


@functools.lru_cache(maxsize=4096)
def parsed(latex: str) -> Any:
    """The sympy expression of a whole formula, decimals and rational constants exact; None where it cannot be read."""
    if len(latex) > _MOST or not latex.strip() or re.search(r"\d\s+\d", latex):
        return None
    from latex2sympy2_extended.latex2sympy2 import latex2sympy
    from math_verify.grader import should_treat_as_complex

    latex = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", repeating(latex))
    latex = re.sub(r"(?<=[\d.)}])i(?![A-Za-z])", " i", latex)
    try:
        found = latex2sympy(latex, is_real=not should_treat_as_complex(latex), normalization_config=None)
        return _settled(found)
    except (TooLarge, RecursionError, MemoryError):
        return None
    except Exception:  # whatever the parser raises: it has not read it
        return None


def _settled(expression: Any) -> Any:
    """An expression with its rational constants as one exact number each, and `i` as the imaginary unit."""
    import sympy

    if getattr(expression, "is_Symbol", False):
        return sympy.I if expression.name == "i" else expression
    if isinstance(expression, sympy.MatrixBase):
        return expression.applyfunc(_settled)
    if not isinstance(expression, sympy.Basic) or not expression.args:
        return expression if not getattr(expression, "is_Float", False) else _rational(exact(expression), expression)
    if isinstance(expression, sympy.Expr):
        value = exact(expression)
        if value is not None:
            return _rational(value, expression)
    kept = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Derivative, sympy.Limit)
    if isinstance(expression, kept) or getattr(expression, "is_Boolean", False) or isinstance(expression, sympy.Set):
        return expression if isinstance(expression, kept) else _rebuilt(expression)
    return _rebuilt(expression)


def _rebuilt(expression: Any) -> Any:
    import sympy

    arguments = getattr(expression, "_unsorted_args", None) or expression.args
    settled = [_settled(argument) for argument in arguments]
    if isinstance(expression, sympy.core.relational.Relational | sympy.Add | sympy.Mul | sympy.Pow):
        return expression.func(*settled, evaluate=False)
    return expression.func(*settled)


def _rational(value: Fraction | None, otherwise: Any) -> Any:
    import sympy

    return otherwise if value is None else sympy.Rational(value.numerator, value.denominator)


def _is_constant(expression: Any) -> bool:
    import sympy

    return isinstance(expression, sympy.Expr) and not expression.free_symbols and not expression.is_infinite


def _equal_constants(wanted: Any, found: Any, reference: tuple | None, answer: tuple | None, factor: Fraction) -> bool:
    left, right = exact(wanted), exact(found)
    if left is not None and right is not None:
        right *= factor
        if left == right:
            return True
    else:
        left, right = (_numeric(expression) for expression in (wanted, found))
        if left is None or right is None:
            return wanted == found
        right *= factor.numerator
        right /= factor.denominator
        if near(left, right):
            return True
        if not reference and not answer:
            return factor == 1 and min(abs(left), abs(right)) < 1e-25 and verified(wanted, found)
    if factor != 1:
        answer = answer and (answer[0], answer[1] * factor)
    return bool(reference and _stands(reference, left, right)) or bool(answer and _stands(answer, right, left))


def _stands(decimal: tuple[int, Fraction], value: Any, other: Any) -> bool:
    if isinstance(value, Fraction):
        return stands_for(decimal, value, other)
    import sympy

    unit = sympy.Rational(decimal[1].numerator, decimal[1].denominator)
    return bool(stands_for((decimal[0], unit), value, other))


def _numeric(expression: Any) -> Any:
    """The value of a constant to 40 digits; None where it has none, or is too large to compute."""
    _require_small(expression)
    value = expression.doit().evalf(40, maxn=200)
    return value if value.is_number and value.is_finite and not value.free_symbols else None


def _require_small(expression: Any) -> None:
    """Raise TooLarge of powers and factorials that would be computed for ever."""
    import sympy

    for part in sympy.preorder_traversal(expression):
        if isinstance(part, sympy.factorial) and not (part.args[0].is_Integer and part.args[0] <= 20000):
            raise TooLarge
        if isinstance(part, sympy.Pow) and not part.exp.free_symbols and not part.base.free_symbols:
            power = exact(part.exp)
            if power is not None and abs(power) > 10**5:
                raise TooLarge


def verified(wanted: Any, found: Any) -> bool:
    """math-verify's comparison."""
    from math_verify import verify

    return bool(verify([wanted], [found], allow_set_relation_comp=True, timeout_seconds=None))


def _alike(wanted: Any, found: Any) -> bool:
    """Whether two expressions that were called equal are near each other at some points: small coefficients are no
    zeros."""
    import sympy

    if not all(isinstance(one, sympy.Expr) for one in (wanted, found)):
        return True
    names = sorted(wanted.free_symbols | found.free_symbols, key=str)
    for shift in range(2):
        point = {name: sympy.Rational(str(_POINTS[(i + shift) % len(_POINTS)])) for i, name in enumerate(names)}
        try:
            left, right = (one.subs(point).evalf(30) for one in (wanted, found))
            if left.is_number and right.is_number and left.is_finite and right.is_finite:
                return bool(abs(left - right) <= 1e-12 * max(abs(left), abs(right)))
        except (TypeError, ValueError, ArithmeticError):
            continue
    return True
