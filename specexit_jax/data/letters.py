"""Letters of options in a text: what is called right, what is ruled out, what is only spoken of."""

import itertools
import re

from specexit_jax.data import letter_patterns as patterns


def undressed(text: str) -> str:
    """A text without LaTeX and markdown around its letters, in plain quotes and dashes."""
    text = re.sub(r"\n[ \t]*\n\s*", "\n\n", re.sub(r"[^\S\n]+", " ", patterns.DRESS.sub("", text)))
    text = re.sub(r"\\[()\[\]]|[*`$_]|\\(?=[ ,;:])|[\"“”「」]", "", text).replace("’", "'").replace("‘", "'")
    text = re.sub(r"(?i)\bnone other than\s+", "", text)
    text = re.sub(r"(?<![\w(])\(?([a-j])\)(?=\W|$)", lambda match: f"({match[1].upper()})", text)
    text = re.sub(r"[\[{]\s*([A-Z])\s*[\]}]", r"(\1)", text)
    text = re.sub(r"(?<=[\u3040-\u9fff\uac00-\ud7af])(?=[A-Z])|(?<=[A-Z])(?=[\u3040-\u9fff\uac00-\ud7af])", " ", text)
    text = re.sub(
        r"(?i)\b(every\w*|all(?:\s+\w+)?|none(?:\s+of\s+\w+(?:\s+\w+)?)?|nothing|any\w*|no\s+\w+)\s+but\b",
        r"\1 except",
        text,
    )
    return re.sub(r"[—–]", " -- ", text)


def settled(text: str) -> tuple[int, str | None] | None:
    """(where, letter) of the last option that an undressed text calls right; letter None where it calls several so, or
    takes it back; None where it calls none right."""
    found: list[tuple[int, str | None]] = []
    start = 0
    for end in [*(match.end() for match in patterns.CLAUSE.finditer(text)), len(text)]:
        clause = text[start:end]
        if len(clause) < 600:
            found += [(start + place, letter) for place, letter in _in_clause(clause)]
        start = end
    if not found:
        return _alone_at_the_end(text)
    at, letter = max(found, key=lambda pair: pair[0])
    return (at, None) if patterns.WITHDRAWN.search(text, at) else (at, letter)


def _alone_at_the_end(text: str) -> tuple[int, str] | None:
    """The only letter of the last sentence that has one, where that sentence settles on something and denies nothing."""
    ends = [
        0,
        *(match.end() for match in re.finditer(r"(?<=[.!?])(?<!^[A-Z]\.)\s+|\n+", text, re.MULTILINE)),
        len(text),
    ]
    for start, end in list(itertools.pairwise(ends))[:-4:-1]:
        sentence = text[start:end]
        places = [match.start(1) for match in re.finditer(patterns.L, sentence) if is_letter(sentence, match.start(1))]
        if not places or len(sentence) > 300:
            continue
        unsettled = any(
            one.search(sentence)
            for one in (patterns.WEIGHED, patterns.OTHERS, patterns.BAD, patterns.DENYING, patterns.SUPPOSED)
        )
        if len({sentence[place] for place in places}) > 1 or unsettled or sentence.rstrip().endswith("?"):
            return None
        return (start + places[-1], sentence[places[-1]]) if patterns.CHOSEN.search(sentence) else None
    return None


def _in_clause(clause: str) -> list[tuple[int, str | None]]:
    if clause.rstrip().endswith("?") or patterns.SUPPOSED.search(clause):
        return []
    found: list[tuple[int, str | None]] = []
    for match in patterns.EXCEPT.finditer(clause):
        none_but = re.match(r"(?i:none|nothing|no\b)", match[0])
        good = re.fullmatch(r"(?i:fits?|works?|satisf\w+|holds?|correct|right|true|match\w*)", match[2])
        return [(match.start(1), match[1] if bool(none_but) == bool(good) else None)]
    for match in patterns.NOT_BUT.finditer(clause):
        found.append((match.start(1), match[1]))
    if not patterns.OTHERS.search(clause):
        found += [
            _told(clause, match)
            for pattern in patterns.SAID
            for match in pattern.finditer(clause)
            if _meant(clause, match)
        ]
    return found


def _meant(clause: str, match: re.Match) -> bool:
    """Whether a match names an option, and denies nothing."""
    place = match.start(1)
    return (
        is_letter(clause, place) and not patterns.DENYING.search(clause[:place]) and not patterns.BAD.search(match[0])
    )


def _told(clause: str, match: re.Match) -> tuple[int, str | None]:
    """(where, letter) of a match; no letter where another is joined to it."""
    before = clause[max(0, match.start(1) - 40) : match.start(1)]
    joined = patterns.MORE.match(clause, match.end(1)) or patterns.LESS.search(before)
    return match.start(1), None if joined else match[1]


def is_letter(text: str, place: int) -> bool:
    """Not the article, nor the one who writes, nor a letter that only names something (Vitamin C)."""
    letter, before, after = text[place], text[:place], text[place + 1 :]
    if before.endswith("("):
        return True
    if patterns.THING.search(before[-30:]):
        return False
    if letter not in "AI":
        return True
    return not re.match(rf"\s+(?!{patterns.VERB}\b)[a-z]", after) and not (
        letter == "I" and re.match(r"'|\s+(?:am|have|was)\b", after)
    )
