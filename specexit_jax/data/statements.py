"""Where a text states its final answer: in its last box, behind "the answer is", in an `answer` field, or at its end."""

import json
import re
from collections.abc import Iterator

LAST = 20_000  # characters of an answer that are read: a statement stands at its end
_MENTIONS = 40  # of those that call something the answer, as many are looked at, from the end
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{")
# Between boxes.
_JOINED = re.compile(
    r"[\s$*,;.\\()\[\]]{0,20}(?:and|or|,|;)[\s$*\\()\[\]]{0,20}((?:[A-Za-z]\w?\s*=\s*)?)[\s$*\\()\[\]]{0,20}"
)
_ASSIGNED = re.compile(r"(?<![A-Za-z\\])([A-Za-z]\w?\s*=)[\s$\\(\[]{0,10}$")
_FIELD = re.compile(r"""["'](?:final_)?answer["']\s*:\s*("(?:[^"\\]|\\.)*"|'[^'\n]*'|[^\s,}"']+)""", re.IGNORECASE)
_TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.IGNORECASE | re.DOTALL)
_HASHES = re.compile(r"####[ \t]*(\S[^\n]*)")
_NOUN = r"(?:\b(?:answer|ans)\b\.?|答案|答え|答|\b(?:respuesta|réponse|antwort|risposta|resposta)\b|\bответ\b|정답|답)"
_VERB = (
    r"(?:(?:is|are|equals|(?:must|should|would|has\s+to|will|can\s+only|therefore)\s+be|was|ist|es|est|è|é)\b"
    r"|['’]s(?=\s)|[:=：]|[—–-](?=\s)|是|为|は|은|는|(?<=\n))"
)
_NAMED = re.compile(
    rf"{_NOUN}(?!\s+(?:choices|options|key|sheet)\b)(?P<filler>(?:\s*,\s*\w+\s*,|\s+(?!is\b|are\b)[^\W\d]+(?:['’]s)?,?){{0,8}}?)\s*[\"'*_)\]]*\s*{_VERB}"
    r"(?P<denied>n['’]t)?[\s:*_\"'“]*(?=\S)",
    re.IGNORECASE,
)
_DENIED = re.compile(r"\W{0,12}(?:not|neither|never|nowhere|none\s+of)\b", re.IGNORECASE)
_BUT = re.compile(r"[^.!?\n]{0,80}?\bbut\s+(?:rather\s+)?(?=\S)", re.IGNORECASE)
_DOUBTED = re.compile(
    r"(?:\b(?:don['’]t|do\s+not|doubt|unlikely|cannot|can['’]t|not|never|no\s+way)\b(?:\s+\w+){0,4}\s*$)|(?:^|[.!?\n]\s*)(?:if|had|were|suppose|assuming|unless)\b[^.!?\n]*$",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])[*_\"')\]]*\s+|(?<=[。!?！？])|\n+")


def last(text: str) -> str:
    """The end of a text, where answers are stated, without runs of spaces and empty lines."""
    text = re.sub(r"[^\S\n]+", " ", text[-LAST:].replace("\r\n", "\n"))
    return re.sub(r"(?:\n ?){3,}", "\n\n", text)


def boxed(text: str) -> str | None:
    """What the last box holds, with the boxes that it is joined to by commas, `and` or `or`, and their names (`x =`).

    None without a box; "" where the last one is empty or never closed.
    """
    starts = list(_BOX.finditer(text))
    if not starts:
        return None
    found = []  # (start, content, end) of the outermost ones
    for match, end in zip(starts, _closings(text, [match.end() for match in starts]), strict=True):
        if not found or match.start() >= found[-1][2]:
            found.append((match.start(), text[match.end() : max(end - 1, 0)] if end else "", end or len(text)))
    parts, names = [found[-1][1]], []
    for before, after in zip(found[-2::-1], found[:0:-1], strict=True):
        between = text[before[2] : after[0]]
        joined = _JOINED.fullmatch(between) if len(between) < 80 else None
        if not joined:
            break
        names.insert(0, joined[1])
        parts.insert(0, before[1])
    if not all(part.strip() for part in parts):
        return ""
    first = _ASSIGNED.search(text[max(0, found[-len(parts)][0] - 20) : found[-len(parts)][0]]) if any(names) else None
    return " , ".join(
        name + part for name, part in zip([first[1] if first else "", *names], parts, strict=True)
    ).strip()


def field(text: str) -> str | None:
    """What the last `answer` field or tag holds."""
    return max(_fields(text), default=(0, 0, None))[2]


def named(text: str) -> str | None:
    """What the text last calls its answer, to the end of the paragraph (of a field or tag: what it holds); None if nothing."""
    fields = _fields(text)
    found = [(at, tail) for at, _, tail in fields]
    mention = next(mentions(text), None)
    if mention and not any(start <= mention[0] <= end for start, end, _ in fields):
        found.append(mention)
    return max(found)[1].strip() if found else None


def _fields(text: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of each `answer` field, tag and line behind hashes."""
    found = [(match.start(), match.end(), _unquoted(match[1]).strip()) for match in _FIELD.finditer(text)]
    return found + [
        (match.start(), match.end(), match[1].strip())
        for pattern in (_TAG, _HASHES)
        for match in pattern.finditer(text)
    ]


def mentions(text: str) -> Iterator[tuple[int, str]]:
    """(start, tail to the end of the paragraph) of each place that calls something the answer, the last one first."""
    for match in reversed(list(_NAMED.finditer(text))[-_MENTIONS:]):
        if _doubted(text, match):
            continue
        start, tail = match.end(), _paragraph(text, match.end())
        if match["denied"] or _DENIED.match(tail):
            but = _BUT.match(tail)
            if not but:
                continue
            start, tail = start + but.end(), tail[but.end() :]
        if tail:
            yield start, tail


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text that hold anything."""
    return [part.strip() for part in _SENTENCE.split(text) if part and part.strip()]


def _doubted(text: str, match: re.Match) -> bool:
    before = text[max(0, match.start() - 120) : match.start()]
    return (
        bool(_DOUBTED.search(before.rsplit("\n", 1)[-1])) or "?" in text[match.end() : match.end() + 25].split(".")[0]
    )


def _paragraph(text: str, start: int) -> str:
    end = re.compile(r"\n[ \t]*\n").search(text, start)
    return text[start : end.start() if end else len(text)]


def _closings(text: str, starts: list[int]) -> list[int | None]:
    """For each place behind an opening brace the place behind the brace that closes it; in one pass."""
    wanted, open_at, found = set(starts), [], {}
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, starts[0] - 1):
        if match[0] == "{":
            open_at.append(match.end())
        elif match[0] == "}" and open_at:
            begun = open_at.pop()
            if begun in wanted:
                found[begun] = match.end()
    return [found.get(start) for start in starts]


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        try:
            return json.loads(value, strict=False)
        except ValueError:  # LaTeX with single backslashes
            return value[1:-1]
    return value.strip("'")
