"""A stated answer as what it lists: numbers and formulas, tuples and intervals, sets, matrices, words."""

import dataclasses
import re

from specexit_jax.data.elements import Item, compound, formula, is_words
from specexit_jax.data.latex import plain, without_text
from specexit_jax.data.number_words import in_digits

_LONGEST = 2000  # characters of a statement; what is longer states no answer
_DEEPEST = 6  # brackets in brackets
_OPEN, _CLOSE = {"(": ")", "[": "]", r"\{": r"\}", r"\langle": r"\rangle", "{": "}"}, (")", "]", r"\}", r"\rangle", "}")
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[()\[\]{},;=]|[^\\]", re.DOTALL)
_EQUALS = re.compile(r"(?<![\\<>!:])=(?![<>])")
_SYMBOL = re.compile(r"\s*\\?[A-Za-z]+(?:_\{?\w+\}?)?'?(?:\s*\(\s*[A-Za-z]\s*\))?\s*")
_ABOUT = r"(?:about|approximately|approx\.?|roughly|around|nearly|almost|some)"
_ROUGH = re.compile(
    rf"\s*(?:\\approx|\\sim(?:eq)?|~|\\text\s*\{{\s*{_ABOUT}\s*\}}|{_ABOUT}(?![A-Za-z]))\s*", re.IGNORECASE
)
_LEAD = re.compile(
    r"\s*(?:exactly|only|just|precisely|equals?|is|i\.?e\.?,?|that is,?|namely|simply|or|and|=|:|=>|answer\s*:"
    r"|(?:all|every|any) (?:real )?[a-z] (?:such that|with|where|satisfying|for which)"
    r"|\\implies|\\Rightarrow|\\therefore)(?![A-Za-z])\s*",
    re.IGNORECASE,
)
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_DECIMAL_COMMA = re.compile(r"(?<![\d,.])(0*\d+),(?!\d{3}(?!\d)(?<!0,\d{3}))(\d+)(?![\d,])")
_JOINING = re.compile(
    r"\s*,?\s*\\text\s*\{\s*,?\s*(and|or)\s*\}\s*|(?<=[\d})\]\w%.])\s*,?\s+(and|or)\s+"
    r"(?=[-+\\({\[\d.<>$€£]|[A-Za-z]\s*(?:=|<|>|\\[lg]e|\\in|\\ne)|about\b|approx|roughly)"
)
_AGAIN = re.compile(r",?\s*\(?\s*(?:i\.e\.|that is|or equivalently|equivalently|which is)\s*,?\s*(?=[-\d\\$.])")


@dataclasses.dataclass(frozen=True)
class Listing:
    """The elements of an answer, and the word that joins them: "or", "and", or a comma."""

    items: tuple[Item, ...] = ()
    joined: str = ","

    @property
    def words(self) -> bool:
        """Whether any of it is in words."""
        return any(item.kind == "words" for item in self.items)


def listed(statement: str, decimal_comma: bool = False) -> Listing:
    """The elements of a statement; none where it states nothing. decimal_comma: `3,75` is one number."""
    if len(statement) > _LONGEST:
        return Listing()
    text = in_digits(_numbers(plain(statement))).strip()
    text = text if text.endswith("...") else text.rstrip(".;:!?。 ")
    if decimal_comma:
        text = _DECIMAL_COMMA.sub(r"\1.\2", text)
    if (quantity := compound(text)) is not None:
        return Listing((quantity,))
    text, joined = _connected(text)
    text = _grouped(text)
    whole = _bracketed(text)
    if whole and whole[0] in (r"\{", "{") and whole[1] in (r"\}", "}"):
        text = whole[2]
    parts = [part.strip() for part in split(text) if part.strip()]
    items = tuple(item for part in parts for item in _elements(part, _DEEPEST))
    return Listing(_coordinates(items[0]) if len(items) == 1 else items, joined)


def _coordinates(item: Item) -> tuple[Item, ...]:
    """`(x, y) = (1, 2)` as x = 1 and y = 2; any other element as it is."""
    names = split(item.name[1:-1]) if item.name.startswith("(") and item.name.endswith(")") else []
    if len(names) < 2 or len(names) != len(item.parts):
        return (item,)
    return tuple(dataclasses.replace(part, name=_bare(name)) for name, part in zip(names, item.parts, strict=True))


def _numbers(text: str) -> str:
    """Digits grouped in other ways than by commas, without their separators."""
    text = re.sub(r"(?<![\d.,])\d{1,3}(?:\.\d{3})+,\d+(?!\d)", lambda m: m[0].replace(".", "").replace(",", "."), text)
    text = re.sub(r"(?<![\d.,])\d{1,3}(?:\.\d{3}){2,}(?![\d.,])", lambda m: m[0].replace(".", ""), text)
    text = re.sub(r"(?<![\d.,'])\d{1,3}(?:'\d{3})+(?!\d)", lambda m: m[0].replace("'", ""), text)
    text = re.sub(r"(?<![\w.,])\d{1,3}(?:_\d{3})+(?![\w])", lambda m: m[0].replace("_", ""), text)
    return re.sub(r"(?<![\w.,}/^])\d{1,3}(?: \d{3})+(?![\d/]| \d)", lambda m: m[0].replace(" ", ""), text)


def _grouped(text: str) -> str:
    """Digits that commas group: outside brackets, and within them where a group begins with 0 (`(1,000)` is a number)."""
    depths, depth = [], 0
    for token in _TOKEN.finditer(text):
        depth += (token[0] in _OPEN) - (token[0] in _CLOSE)
        depths += [depth] * len(token[0])
    return _GROUPED.sub(
        lambda match: match[0].replace(",", "") if depths[match.start()] <= 0 or ",0" in match[0] else match[0], text
    )


def _connected(text: str) -> tuple[str, str]:
    r"""`1 \text{ and } -2`, `x = 1 or x = -2` → their elements between commas, and which word joins them."""
    found = [match[1] or match[2] for match in _JOINING.finditer(text)] + re.findall(r"\\l(or|and)\b", text)
    text = _AGAIN.sub(" , ", re.sub(r"\\l(?:or|and)(?![A-Za-z])", " , ", _JOINING.sub(" , ", text)))
    return text, found[0] if found else ","


def split(text: str, at: str = ",;") -> list[str]:
    """The parts of a text between signs outside all brackets; braces of LaTeX are brackets too."""
    depth, start, parts = 0, 0, []
    for token in _TOKEN.finditer(text):
        depth += (token[0] in _OPEN) - (token[0] in _CLOSE)
        if depth == 0 and len(token[0]) == 1 and token[0] in at:
            parts.append(text[start : token.start()])
            start = token.end()
    return [*parts, text[start:]]


def _bracketed(text: str) -> tuple[str, str, str] | None:
    """(opening, closing, content) of a text that one pair of brackets encloses, alike or not (`[0, 1)`); else None."""
    text = text.strip()
    opening = re.match(r"\\langle|\\\{|[(\[{]", text)
    closing = re.search(r"(?:\\rangle|\\\}|[)\]}])$", text)
    if not opening or not closing or opening.end() > closing.start():
        return None
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += (token[0] in _OPEN) - (token[0] in _CLOSE)
        if depth <= 0 and token.end() < len(text):
            return None
    return opening[0], closing[0], text[opening.end() : closing.start()]


def _elements(part: str, deep: int) -> list[Item]:
    """The element that a part is; two of one with ±."""
    rough, part = _led(part)
    sides = [side.strip() for side in _EQUALS.split(part)]
    name, value = "", part
    if len(sides) > 1 and all(sides) and _depth_even(sides):
        name, value = _named(sides)
    if said := re.fullmatch(
        r"(?:[A-Za-z]{2,}\s+){1,8}(?:is|are|be|get|gives?|find|has|have|so|then|where|with|that)\s+(\\?[A-Za-z](?:_\{?\w+\}?)?)",
        name,
    ):
        name = said[1]  # `the solution is p`
    if len(sides) > 1 and is_words(name) and (re.search(r"[\d(]", name) or len(without_text(name).split()) > 4):
        return [Item("words", part)]  # a sentence with an equation in it
    if r"\approx" in value:
        before, after = value.split(r"\approx", 1)
        is_name = not name and _SYMBOL.fullmatch(before)
        name, value, rough = (before.strip(), after, True) if is_name else (name, before, rough)
    if belongs := re.match(r"\s*(\(?[A-Za-z, ]+\)?)\s*\\in(?![A-Za-z])\s*", value):
        name, value = belongs[1].strip(), value[belongs.end() :]
    found = [dataclasses.replace(item, rough=rough or item.rough) for item in _values(value.strip(), deep)]
    return [dataclasses.replace(item, name=_bare(name)) for item in found]


def _depth_even(sides: list[str]) -> bool:
    return all(side.count("{") == side.count("}") and side.count("(") == side.count(")") for side in sides)


def _led(part: str) -> tuple[bool, str]:
    """Whether a part is called approximate, and the part without the words that lead it in."""
    rough = False
    for _ in range(4):
        if match := _ROUGH.match(part):
            rough, part = True, part[match.end() :]
        elif (match := _LEAD.match(part)) and match.end() < len(part):
            part = part[match.end() :]
        else:
            break
    return rough, part.strip()


def _named(sides: list[str]) -> tuple[str, str]:
    """(name, value) of a chain of equals signs; the value is the last that is not a rounded one."""
    if (
        len(sides) == 2
        and _SYMBOL.fullmatch(sides[1])
        and not _SYMBOL.fullmatch(sides[0])
        and not re.search(r"[A-Za-z]{2}", sides[1])
    ):
        return sides[1], sides[0]
    value = sides[-1]
    if len(sides) > 2 and re.search(r"\d\.\d", value) and not re.search(r"\d\.\d", sides[-2]):
        value = sides[-2]
    return sides[0], value


def _bare(name: str) -> str:
    return re.sub(r"[\s{}]", "", without_text(name)).strip(":")


def _values(text: str, deep: int) -> list[Item]:
    if not text or deep == 0:
        return []
    if matrix := re.fullmatch(
        r"[\[(]?\s*\\begin\{(?:[bpB]?matrix|smallmatrix|array)\}\s*(?:\{[^{}]*\})?(.*?)\\end\{\w+\}\s*[\])]?",
        text,
        re.DOTALL,
    ):
        rows = [row for row in matrix[1].split(r"\\") if row.strip()]
        return [Item("matrix", "", tuple(_tuple("(", ")", row.split("&"), deep) for row in rows))]
    if outward := re.fullmatch(r"([\](])([^\[\]()]*)([\[)])", text):  # ]0, 1[ as in France
        if "]" in outward[1] or "[" in outward[3]:
            return [_tuple(outward[1].replace("]", "("), outward[3].replace("[", ")"), split(outward[2]), deep)]
    if brackets := _bracketed(text):
        opening, closing, inner = brackets
        parts = split(inner)
        if len(parts) > 1 or opening == r"\{":
            if opening in (r"\{", "{"):
                return [Item("set", "", tuple(item for part in parts for item in _elements(part, deep - 1)))]
            return [_tuple(opening.replace(r"\langle", "("), closing.replace(r"\rangle", ")"), parts, deep)]
        if (opening, closing) in (("(", ")"), ("{", "}")):
            return _values(inner.strip(), deep - 1)
    return formula(text)


def _tuple(opening: str, closing: str, parts: list[str], deep: int) -> Item:
    found = []
    for part in parts:
        items = _elements(part, deep - 1)
        found.append(items[0] if len(items) == 1 else Item("formula", part.strip()))
    rows = (
        all(item.kind == "tuple" and item.text == "[]" for item in found)
        and len({len(item.parts) for item in found}) == 1
    )
    if rows and (opening, closing) == ("[", "]"):
        return Item("matrix", "", tuple(dataclasses.replace(row, text="()") for row in found))
    return Item("tuple", opening + closing, tuple(found))
