"""The options of a choice in the forms in which data sets hold them, and which of them an answer names."""

import ast
import dataclasses
import io
import json
import re
import string
import tokenize
from collections.abc import Iterator, Sequence
from typing import Any

from specexit_jax.data.cells import one_space, shortened, text_of

ANSWERS = ("label", "text", "index0", "index1")
_TEXTS = ("text", "texts", "choices", "options", "choice", "option", "value", "content")
_LABELS = ("label", "labels", "key", "keys", "letter", "letters", "id")


@dataclasses.dataclass(frozen=True)
class Options:
    """labels: what the data set calls them, letters where it calls them nothing. numbers: some are numbers by type.
    numbered: the labels are the last digits of columns, which may say nothing about what answers count from."""

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    numbers: bool = False
    numbered: str = ""


def read_options(cell: Any) -> Options:
    """From {label: […], text: […]}, {"A": text, …}, a list of texts, of {label, text} or of pairs, each also written as
    JSON or Python in a string, or a string of lines or of letters and texts.

    Letters that the texts begin with are taken off. Raises ValueError with what is wrong, to follow the cell's place.
    """
    found = _parsed(cell) if isinstance(cell, str) else cell
    if isinstance(found, dict):
        labels, values = _of_object(found)
    elif isinstance(found, (list, tuple)):
        labels, values = _of_list(found)
    else:
        raise ValueError(f"{shortened(str(cell))} is not a list of options")
    return _options(labels, values)


def options_in(cells: dict[str, Any]) -> Options:
    """Of columns, one an option; those at the end that a row leaves empty are not there."""
    names, values = list(cells), list(cells.values())
    while values and values[-1] in (None, ""):
        names, values = names[:-1], values[:-1]
    short = _endings(names)
    digits = all(name.isdigit() for name in short)
    found = _options(None if digits else short, values)
    return dataclasses.replace(found, numbered=_beginning(names)) if digits else found


def place_of(options: Options, answer: Any, said: str = "") -> int:
    """Which option is right, counted from 0. said: what answers are, one of ANSWERS; "": a label, else the words of one
    option, else its place counted from 0, where only one of the two is possible.

    Raises ValueError with what is wrong, to follow the answer's place.
    """
    text = one_space(text_of(answer))
    count, number = len(options.texts), int(text) if re.fullmatch(r"[0-9]{1,3}", text) else None
    if said.startswith("index"):
        place = None if number is None else number - int(said[-1])
    elif said == "label":
        digits = [str(n + 1) for n in range(count)]
        place = _label(digits if options.numbered and text in digits else options.labels, text)
    elif said == "text":
        place = _words(options.texts, text)
    else:
        place = _guessed(options, text, number, typed=isinstance(answer, int))
    if place is None or not 0 <= place < count:
        hint = f" (answers are read as {said})" if said else "; answers that count from 1 need source.answer_as=index1"
        called = f"{', '.join(options.labels[:5])}{', …' if count > 5 else ''}"
        raise ValueError(f"{shortened(text)} is no option of {called}{hint if said or number is not None else ''}")
    return place


def _guessed(options: Options, text: str, number: int | None, typed: bool) -> int | None:
    if text in options.labels:
        return options.labels.index(text)
    inside = number is not None and number < len(options.texts)
    if options.numbered and number is not None:
        raise ValueError(
            f"{text!r} may name column {options.numbered}{text}, or count from 0: give source.answer_as=label or index0"
        )
    if inside and typed and not options.numbers:
        return number
    words = _words(options.texts, text)
    if inside and words is not None and words != number:
        raise ValueError(
            f"{text!r} is the words of one option and the place of another: give source.answer_as=text, index0 or index1"
        )
    if words is not None:
        return words
    return number if inside else _label(options.labels, text)


def _label(labels: Sequence[str], text: str) -> int | None:
    """`C`, `c`, `(C)`, `C.`, or `C) the words`."""
    wanted = re.match(r"[(\[]?(\w+)(?:[).:\]](?:\s.*)?)?$", text, re.DOTALL)
    called = [label.casefold() for label in labels]
    name = wanted[1].casefold() if wanted else text.casefold()
    return called.index(name) if name in called else None


def _words(texts: Sequence[str], text: str) -> int | None:
    same = [place for place, words in enumerate(texts) if one_space(words) == text]
    same = same or [place for place, words in enumerate(texts) if one_space(words).casefold() == text.casefold()]
    close = [place for place, words in enumerate(texts) if one_space(words).casefold() == text.casefold()]
    if len(close) > 1:
        raise ValueError(f"{shortened(text)} is the words of {len(close)} options")
    return same[0] if same else None


def _options(labels: Sequence[Any] | None, values: Sequence[Any]) -> Options:
    texts = []
    for number, value in enumerate(values, start=1):
        try:
            text = text_of(value).strip()
        except ValueError as error:
            raise ValueError(f"option {number} {error}") from None
        if not text:
            raise ValueError(f"option {number} is empty")
        texts.append(text)
    if not 2 <= len(texts) <= 26:
        raise ValueError(
            "it holds one option" if len(texts) == 1 else f"it holds {len(texts)} options, and letters for 26"
        )
    texts = _without_letters(texts)
    called = list(string.ascii_uppercase[: len(texts)]) if labels is None else [text_of(one).strip() for one in labels]
    if len(called) != len(texts):
        raise ValueError(f"it holds {len(called)} labels for {len(texts)} options")
    for label in called:
        if called.count(label) > 1:
            raise ValueError(f"label {label!r} stands twice")
    return Options(tuple(called), tuple(texts), numbers=any(isinstance(value, int) for value in values))


def _of_object(found: dict) -> tuple[Sequence[Any] | None, Sequence[Any]]:
    lists = {name: value for name, value in found.items() if isinstance(value, (list, tuple))}
    texts = next((name for name in _TEXTS if name in lists), None)
    if texts is not None:
        labels = next((name for name in _LABELS if name in lists), None)
        return None if labels is None else lists[labels], lists[texts]
    held = {str(name): value for name, value in found.items() if value is not None}
    return _endings(list(held)), list(held.values())


def _of_list(found: Sequence[Any]) -> tuple[Sequence[Any] | None, Sequence[Any]]:
    if found and all(isinstance(one, dict) for one in found):
        pairs = [_pair(one) for one in found]
    elif found and all(isinstance(one, (list, tuple)) and len(one) == 2 for one in found):
        pairs = list(found)
    else:
        return None, found
    labels, values = [label for label, _ in pairs], [value for _, value in pairs]
    return None if None in labels else labels, values


def _pair(one: dict) -> tuple[Any, Any]:
    text = next((name for name in _TEXTS if name in one), None)
    if text is None and len(one) == 1:
        return next(iter(one.items()))
    label = next((name for name in _LABELS if name in one), None)
    return None if label is None else one[label], None if text is None else one[text]


def _endings(names: Sequence[str]) -> list[str]:
    """What tells names apart, where that is one character each: a, b of option_a, option_b."""
    start = len(_beginning(names)) if len(names) > 1 else 0
    ends = [name[start:] for name in names]
    return ends if all(len(end) == 1 for end in ends) else list(names)


def _beginning(names: Sequence[str]) -> str:
    """What all names begin with."""
    low, high = min(names), max(names)
    return low[: next((place for place, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))]


def _parsed(text: str) -> Any:
    """What a string writes: JSON, Python as `str` or numpy print it, lettered texts in a row, or lines."""
    text = text.strip()
    if text[:1] in ("[", "{", "("):
        for read in (json.loads, _literal):
            try:
                return read(text)
            except (ValueError, SyntaxError, tokenize.TokenError):
                continue
    lettered = list(_lettered(text))
    if len(lettered) > 1:
        return [words for _, words in lettered]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines if len(lines) > 1 else text


def _literal(text: str) -> Any:
    """Python's notation of texts, numbers, lists and dicts, with numpy's: no commas, and array([...], dtype=object)."""
    words, last = [], None
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT):
            continue
        if token.type == last and token.type in (tokenize.STRING, tokenize.NUMBER):
            words.append(",")
        words.append(token.string)
        last = token.type
    return _value(ast.parse(" ".join(words).strip(), mode="eval").body)


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "array" and node.args:
        return _value(node.args[0])
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(one) for one in node.elts]
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True)}
    return ast.literal_eval(node)


def _lettered(text: str) -> Iterator[tuple[str, str]]:
    """(letter, words) of `A) red B) blue`, `(a) red, (b) blue`, …, all marked alike from the first letter on."""
    start = re.match(r"([(\[]?)([Aa1])(\s?[).:\]])\s*", text)
    if not start:
        return
    marks = [start]
    letters = "123456789" if start[2] == "1" else string.ascii_letters[26 * (start[2] == "A") :][:26]
    for letter in letters[1:]:
        mark = re.compile(rf"(?<=[\s,;]){re.escape(start[1])}{letter}{re.escape(start[3])}\s*")
        if not (found := mark.search(text, marks[-1].end())):
            break
        marks.append(found)
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    for letter, mark, end in zip(letters, marks, ends, strict=False):
        yield letter, text[mark.end() : end].strip().rstrip(",;").rstrip()


def _without_letters(texts: Sequence[str]) -> list[str]:
    """The texts without letters in front, where all have theirs, in order."""
    marked = [re.match(r"[(\[]?([A-Za-z])\s?[).:\]]\s*(?=\S)", text) for text in texts]
    letters = [mark[1].upper() if mark else "" for mark in marked]
    if letters != list(string.ascii_uppercase[: len(texts)]):
        return list(texts)
    return [text[mark.end() :] for text, mark in zip(texts, marked, strict=True)]
