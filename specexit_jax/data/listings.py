"""Two answers as mathematics: lists as sets, tuples in order, what is named by its name."""

import re

from specexit_jax.data.elements import Item
from specexit_jax.data.equality import bare, equal_formulas, equal_matrices, parsed, verified
from specexit_jax.data.formulas import Listing
from specexit_jax.data.units import ratio

_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|cup|cap|setminus|mathbb|infty|emptyset)(?![A-Za-z])")


def same_listing(reference: Listing, answer: Listing) -> bool:
    """Whether two answers state the same; one that states nothing equals nothing."""
    right, found = _distinct(reference.items), _distinct(answer.items)
    if not right or not found:
        return False
    if len(right) == len(found):
        return _paired(right, found)
    one, many = sorted((right, found), key=len)
    if len(one) == 1 and one[0].kind == "tuple" and one[0].text in ("()", "[]") and len(one[0].parts) == len(many):
        return _in_order(one[0].parts, many) if one[0].text == "()" else False
    if len(one) == 1 and one[0].kind == "set" and len(one[0].parts) == len(many):
        return _paired(one[0].parts, many)
    return _same_sets(Listing(right, reference.joined), Listing(found, answer.joined))


def _distinct(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """The elements without those that say another one again: rounded, in percent, in another unit."""
    if len(items) == 1 or not all(item.kind == "formula" for item in items):
        return items
    exact = [item for item in items if not item.rough]
    items = tuple(exact) if exact else items
    kept = [items[0]]
    for item in items[1:]:
        again = any(
            (
                item.percent != one.percent
                or item.unit != one.unit
                or "/" in item.text + one.text
                or r"\frac" in item.text + one.text
                or item.name
            )
            and bare(item.text) != bare(one.text)
            and item.name in ("", one.name)
            and same_item(one, item)
            for one in kept
        )
        if not again:
            kept.append(item)
    return tuple(kept)


def _paired(right: tuple[Item, ...], found: tuple[Item, ...]) -> bool:
    """Equal element by element: by names, where both sides name their elements differently, else in any order."""
    if len(right) == 1:
        return _compatible(right[0].name, found[0].name) and same_item(right[0], found[0])
    named = [
        len({item.name for item in items}) == len(items) and all(item.name for item in items)
        for items in (right, found)
    ]
    if all(named):
        values = {item.name: item for item in found}
        return all(item.name in values and same_item(item, values[item.name]) for item in right)
    if any(named) and not any(item.name for item in (found if named[0] else right)):
        return _in_order(
            *(
                tuple(sorted(items, key=lambda item: item.name)) if has else items
                for items, has in zip((right, found), named, strict=True)
            )
        )
    left = list(found)
    for one in right:
        other = next((item for item in left if same_item(one, item)), None)
        if other is None:
            return False
        left.remove(other)
    return True


def _in_order(right: tuple[Item, ...], found: tuple[Item, ...]) -> bool:
    return len(right) == len(found) and all(map(same_item, right, found))


def _compatible(one: str, other: str) -> bool:
    """Whether two names can be of one quantity: one symbol is not another; `y` is `f(x)`, and words say what they like."""
    symbols = [re.fullmatch(r"[A-Za-z](?:_?\w)?'?", name) for name in (one, other)]
    return one == other or not all(symbols)


def same_item(reference: Item, answer: Item) -> bool:
    """Whether two elements are the same."""
    kinds = {reference.kind, answer.kind}
    if kinds == {"tuple", "matrix"}:
        matrix, row = sorted((reference, answer), key=lambda item: item.kind)
        flat = tuple(cell for part in matrix.parts for cell in part.parts)
        return row.text == "()" and 1 in (len(matrix.parts), len(matrix.parts[0].parts)) and _in_order(flat, row.parts)
    if kinds == {"tuple"} and reference.text != answer.text:
        return False
    if kinds in ({"tuple"}, {"matrix"}):
        return len(reference.parts) == len(answer.parts) and all(map(same_item, reference.parts, answer.parts))
    if kinds == {"set"}:
        return len(reference.parts) == len(answer.parts) and _paired(reference.parts, answer.parts)
    if kinds == {"formula", "matrix"}:
        return equal_matrices(_latex(reference), _latex(answer))
    if "time" in kinds:
        one, other = (bare(item.text).casefold() for item in (reference, answer))
        return one == other or (one.rstrip("apm") == other.rstrip("apm") and not one[-1] == other[-1] == "m")
    if "words" in kinds:
        return _same_words(reference, answer)
    if kinds == {"formula"}:
        return _same_quantity(reference, answer)
    return _same_sets(Listing((reference,)), Listing((answer,)))


def _same_words(reference: Item, answer: Item) -> bool:
    one, other = (bare(item.text).casefold() for item in (reference, answer))
    return bool(one) and one == other


def _same_quantity(reference: Item, answer: Item) -> bool:
    """Numbers or formulas with what they are measured in; equations as a whole, unless only one of them has a left side."""
    if turned := _in_radians(reference, answer):
        return equal_formulas(*turned)
    factor = ratio(answer.unit, reference.unit)
    if factor is None:
        return False
    names = reference.name, answer.name
    if all(names) and names[0] != names[1] and not all(map(_is_function, names)):
        return _same_equation(reference, answer)
    if (
        any(names)
        and not all(names)
        and re.search(r"\d\s*[a-z]|[a-z)]\s*\^", re.sub(r"\\[A-Za-z]+", "", "".join(names)))
    ):
        return False  # an equation, and a value
    if reference.percent == answer.percent:
        return equal_formulas(reference.text, answer.text, factor)
    plain, percent = sorted((reference, answer), key=lambda item: item.percent)
    if equal_formulas(plain.text, percent.text):
        return True
    return equal_formulas(plain.text, rf"\frac{{{percent.text}}}{{100}}")


def _in_radians(reference: Item, answer: Item) -> tuple[str, str] | None:
    """Both texts in radians, where one is in degrees and the other in radians, said or with π in it; else None."""
    degrees, radians = (
        [item.unit is not None and item.unit.dimensions == ((name, 1),) for item in (reference, answer)]
        for name in ("degree", "radian")
    )
    if degrees[0] == degrees[1] or not (
        radians[0] or radians[1] or r"\pi" in (answer if degrees[0] else reference).text
    ):
        return None
    pair = (
        rf"({item.text})\cdot \frac{{\pi}}{{180}}" if turned else item.text
        for item, turned in zip((reference, answer), degrees, strict=True)
    )
    return tuple(pair)


def _is_function(name: str) -> bool:
    return bool(re.fullmatch(r"y|[fgh]\([a-z]\)", name))


def _same_equation(reference: Item, answer: Item) -> bool:
    if all(re.fullmatch(r"[A-Za-z](?:_?\w)?", item.name) for item in (reference, answer)) and not re.search(
        r"[a-z]", reference.text + answer.text
    ):
        return False
    wanted, found = (parsed(f"{item.name} = {item.text}") for item in (reference, answer))
    return wanted is not None and found is not None and verified(wanted, found)


def _same_sets(reference: Listing, answer: Listing) -> bool:
    """Intervals, inequalities and finite sets as sets of real numbers."""
    if not any(_RELATION.search(_latex(item)) for listing in (reference, answer) for item in listing.items):
        return False
    sets = [_set(listing) for listing in (reference, answer)]
    if any(one is None for one in sets):
        return False
    left, right = sets
    return bool(left == right or left.symmetric_difference(right).is_empty)


def _latex(item: Item) -> str:
    if item.kind == "matrix":
        rows = r" \\ ".join(" & ".join(map(_latex, row.parts)) for row in item.parts)
        return rf"\begin{{pmatrix}} {rows} \end{{pmatrix}}"
    if item.kind == "set":
        return r"\{" + ",".join(map(_latex, item.parts)) + r"\}"
    if item.kind == "tuple":
        return item.text[0] + ",".join(map(_latex, item.parts)) + item.text[1]
    return item.text


def _set(listing: Listing):
    """The set of real numbers that a list of relations, intervals and numbers describes; None where it describes none."""
    import sympy

    found = []
    for item in listing.items:
        expression = parsed(_latex(item)) if item.kind != "words" else None
        if expression is None:
            return None
        if isinstance(expression, sympy.Set):
            found.append(expression)
        elif getattr(expression, "is_Boolean", False) or isinstance(expression, sympy.core.relational.Relational):
            arguments = getattr(expression, "_unsorted_args", (expression,))
            found.append(sympy.Intersection(*(one.as_set() for one in arguments)))
        elif isinstance(expression, sympy.Expr) and not expression.free_symbols:
            found.append(sympy.FiniteSet(expression))
        else:
            return None
    relations = any(re.search(r"[<>]|\\[lg]e|\\ne", item.text) for item in listing.items)
    return (sympy.Intersection if relations and listing.joined != "or" else sympy.Union)(*found)
