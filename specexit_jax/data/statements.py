"""Where a text states its final answer: in its last box, behind "the answer is", in an `answer` field, or at its end."""

import json
import re
from collections.abc import Iterator

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{")
_JOINED = re.compile(r"[\s$*,;.\\()\[\]]*(?:and|or|,)[\s$*\\()\[\]]*")  # what stands between the boxes of one answer
_FIELD = re.compile(r"""["']answer["']\s*:\s*("(?:[^"\\]|\\.)*"|'[^']*'|[^\s,}"']+)""", re.IGNORECASE)
_TAG = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
_HASHES = re.compile(r"####[ \t]*(\S[^\n]*)")
_NAMED = re.compile(
    r"""(?:\banswer\b|答案)(?:\s+to\s[^.\n]{0,80}?)?["'*_\s]*
    (?:(?:is|are|equals|must\s+be|should\s+be|would\s+be)\b|[:=：—-]|是|为|(?<=\n))[\s:*_"']*(\S[^\n]*(?:\n[^\n]+)*)""",
    re.IGNORECASE | re.VERBOSE,
)
_DENIED = re.compile(r"\W*(?:not|neither|never)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?])[*_\"')\]]*\s+|(?<=[。!?])|\n+")


def boxed(text: str) -> str | None:
    """What the last box holds, with the boxes that it is joined to by commas, `and` or `or`.

    None without a box; "" where the last one is empty or never closed.
    """
    found = []  # (start, content, end)
    for match in _BOX.finditer(text):
        if found and match.start() < found[-1][2]:
            continue  # a box in a box
        end = _closing(text, match.end())
        found.append((match.start(), text[match.end() : max(end - 1, 0)] if end else "", end or len(text)))
    if not found:
        return None
    parts = [found[-1][1]]
    for before, after in zip(found[-2::-1], found[:0:-1], strict=True):
        if not _JOINED.fullmatch(text[before[2] : after[0]]):
            break
        parts.insert(0, before[1])
    return " , ".join(parts).strip() if all(parts) else ""


def named(text: str) -> str | None:
    """What the text last calls its answer, to the end of the paragraph (of a field or tag: what it holds); None if nothing."""
    found = [(match.start(1), 1, _unquoted(match[1])) for match in _FIELD.finditer(text)]
    found += [(match.start(1), 1, match[1]) for pattern in (_TAG, _HASHES) for match in pattern.finditer(text)]
    found += [(start, 0, tail) for start, tail in _mentions(text) if not _DENIED.match(tail)]
    return max(found)[2].strip() if found else None


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text that hold anything."""
    return [part.strip() for part in _SENTENCE.split(text) if part and part.strip()]


def _mentions(text: str) -> Iterator[tuple[int, str]]:
    """(start, tail) of each place that names the answer; one tail may hold the next place."""
    at = 0
    while match := _NAMED.search(text, at):
        yield match.start(1), match[1]
        at = match.start(1)


def _closing(text: str, start: int) -> int | None:
    """The place behind the brace that closes what was opened before `start`."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if not depth:
            return match.end()
    return None


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        try:
            return json.loads(value, strict=False)
        except ValueError:  # LaTeX with single backslashes
            return value[1:-1]
    return value.strip("'")
