"""Letters of options in a text: what is called right, what is ruled out, what is only spoken of."""

import itertools
import re

_DRESS = re.compile(r"\\(?:text(?:bf|it|rm|sf)?|math(?:rm|bf|it|sf)|mbox|boxed|fbox|bf|rm)\b\s*")
_NAME = r"(?:(?:option|choice|answer|letter|statement|alternative|selection|item|candidate)\s+(?:letter\s+)?)"
L = rf"(?:(?i:{_NAME}))?\(?(?<![\w'+#-])([A-Z])(?![\w'+#]|-\w|\.\w)\)?"  # a letter in what may surround it


def _any(phrases: str) -> str:
    """A pattern of any of the phrases that semicolons part; a space stands for any."""
    return "(?:" + "|".join(phrase.strip().replace(" ", r"\s+") for phrase in phrases.split(";")) + ")"


_AFTER = (
    r"(?=\s*(?:[.,;:!)\]。，；]|--|$|\(|"
    + _any("because; since; as; for; rather; instead; over; not; and not; but not; here; in this")
    + r"\b))"
)
_GOOD = _any(
    "correct; right; best; true; final; proper; appropriate; likely; valid; chosen; selected; my; our; only; "
    "remaining; intended; accurate; resulting; desired"
)
_KIND = _any(
    "answer; option; choice; one; statement; response; selection; pick; letter; conclusion; alternative; "
    "explanation; description; solution; result; candidate; guess; ans"
)
_BE = _any(
    "is; are; will be; would be; should be; must be; has to be; can only be; therefore be; seems to be; "
    "appears to be; is thus; is therefore; is clearly"
)
_TAKE = _any(
    "(?:end|wind) up with; arrive at; (?:vote|choice|pick) is for; "
    "tak(?:e|ing); choos(?:e|ing); pick(?:ing)?; select(?:ing)?; go(?:ing)? (?:with|for); opt(?:ing)? for; "
    "settl(?:e|ing) (?:on|for); stick(?:ing)? (?:with|to); stay(?:ing)? with; vot(?:e|ing) for; mark(?:ing)?; "
    r"circle; say(?:ing)?; answer(?:ing)?(?:\s+with)?; conclude(?:\s+that)?(?:\s+(?:it is|the answer is))?; "
    r"leav(?:es|ing)(?:\s+us)?(?:\s+with)?; left with; left is; remains?(?:\s+is)?; "
    r"points?\s+(?:\w+\s+)?(?:to|at|towards?); match(?:es)?; corresponds? to; corresponding to; "
    r"leads?\s+(?:us\s+)?to; gives?; consistent with; agrees? with; supports?; favou?rs?; lands? on; comes? "
    r"down to; narrows?\s+\w+\s+down\s+to; switch(?:ing)? to; chang(?:e|ing)\s+(?:\w+\s+){0,3}to; it's; its; it "
    "(?:is|must be|has to be|should be|can only be); that's; that is; this is; makes? it; 选择?; 故选; 应选; 选项"
)
_WON = (
    r"(?:(?:\w+ly\s+|also\s+)?"
    + _any(
        "holds?; fits?; works?; remains; matches; satisf(?:y|ies); "
        r"makes\s+(?:the\s+most\s+|most\s+|more\s+)?sense; survives; wins; stands; follows; agrees; describes?; "
        r"explains?; answers; captures; is left; is supported; is what; it is; is it; best\s+\w+; gives the "
        "(?:right|correct)"
    )
    + r"\b)"
)
_COLONED = _any(
    r"answer; option; choice; pick; selection; letter; response; conclusion; solution; ans\.?; correct; right"
)
_SO = _any(
    "therefore; thus; hence; so; then; finally; definitely; clearly; certainly; surely; probably; ultimately; "
    "only; just; reflection; actually; no; conclusion; correction; final"
)
_PRAISED = (
    rf"(?:{_GOOD}\b|{_KIND}\s+(?:that|which|to|i)\b|"
    + _any(
        r"answer; the one; the case; so; consistent; supported; plausible; left; justified; (?:most|more|better)\s+\w+"
    )
    + r"\b)"
)
_JUST = "(?:only|just|us|with|on|definitely|therefore|thus)"
_SAID = [  # what calls the letter in its first group right
    re.compile(pattern)
    for pattern in (
        rf"(?i:\b{_GOOD}\s+(?:\w+\s+)?{_KIND}\b(?:\s*,?\s+(?!{_BE})[\w'’]+){{0,6}}?\s*,?\s*(?:{_BE}|:|=|->|→|-(?=\s))\s*(?:\w+ly\s+)?){L}",
        rf"(?i:\b{_COLONED}\s*(?::|=|->|→)\s*){L}",
        rf"(?i:(?:\b|(?=[选故应])){_TAKE}\s*(?:{_JUST}\s+)*){L}{_AFTER}",
        rf"\b{L}\s*(?i:(?:'s|(?:really\s+|clearly\s+|indeed\s+)?{_BE}|seems|appears|looks)"
        rf"\s+(?!not\b|never\b|in\b|only\s+(?:half|partly))(?:\w+ly\s+)?(?:the\s+|my\s+|our\s+)?(?:\w+\s+)?{_PRAISED})",
        rf"(?i:\bthe\s+(?:\w+\s+)?{_KIND}\s+(?:that|which|we|i|with|in|for|to)\b[^.;:!?]{{1,80}}?\s+(?:{_BE}|:)\s*){L}",
        rf"(?i:\bonly\s+){L}\s+(?i:(?!not\b|is\s+not|isn't)\w+)",
        rf"\b{L}\s+(?i:{_WON})",
        rf"(?i:\b(?:makes?|making|leaves?|leaving|with|have|gives?|marks?|identif(?:y|ies)|consider)\s+){L}"
        rf"\s+(?i:(?:as\s+|being\s+|to\s+be\s+)?(?:the\s+|my\s+|our\s+)?(?:\w+\s+)?(?:{_GOOD}|answer)\b)",
        rf"(?i:\b{_SO}\b[,:]?\s+|(?:=>|⇒|->|→|∴|:)\s*){L}\s*[.!]?\s*$",
        rf"(?i:^\W{{0,12}}(?:yes|ok|okay|right)?\W{{0,12}}){L}\W{{0,12}}$",
    )
]
_OUT = _any("fails?; wrong; incorrect; false; out; eliminated; excluded; contradicts?; impossible")
_IN = _any(r"fits?; works?; satisf\w+; holds?; correct; right; true; match\w*")
_EXCEPT = re.compile(  # `everything except B fails`, `none but B fits`
    r"(?i:\b(?:every(?:thing|\s*one)?|all|each|any|none|nothing|no)\b[^.;]{0,40}?\b(?:except|but|besides|apart\s+from|other\s+than|save)\s+"
    rf"(?:for\s+)?){L}(?i:\s+(?:[\w']+\s+){{0,4}}?({_OUT}|{_IN}))"
)
_NOT_BUT = re.compile(rf"(?i:(?:\bnot|n't)\b[^.;!?]{{1,60}}?\bbut\s+(?:rather\s+)?){L}")
DENYING = re.compile(
    r"(?i:n't\b|\b"
    + _any(
        r"not; never; neither; nor; cannot; rul(?:e|es|ed|ing) out; eliminat\w+; exclud\w+; reject\w*; discard\w*; "
        r"doubt\w*; unlikely; no longer; instead of; rather than; unlike; without; wrongly; mistak\w+; incorrectly"
    )
    + r"\b)"
)
_OTHERS = re.compile(  # what others might take, or was taken before
    r"(?i:\b"
    + _any(
        r"(?:many|some|most)\s+(?:of\b|students?|people|would|may|might|will|readers?); students?; people; someone; "
        r"claim(?:s|ed)?; argue[sd]?; "
        r"others\s+(?:may|might|would|could|say|think|choose|pick); (?:one|you)\s+(?:might|may|could); tempt\w*; "
        "could be; might be; may be; at first; initially; first guess; leaned; leaning"
    )
    + r"\b)"
)
_BAD = re.compile(
    r"(?i:\b"
    + _any(
        r"fail\w*; wrong; incorrect; false; weakest; worst; least; eliminat\w+; exclud\w+; impossible; trap; "
        r"mistake\w*; distractor; invalid; inconsistent; contradict\w*"
    )
    + r"\b)"
)
_CHOSEN = re.compile(  # what a sentence that settles on its only letter has beside it
    r"(?i:\b"
    + _any(
        r"closest; nearest; exactly; precisely; best; most; must; has to; got to; only; therefore; thus; so; hence;"
        r" answer; correct; right; conclu\w+; required; asked; states?; describes?; fits?; match\w*; satisf\w+; works?; implies;"
        r" means; clearly; indeed; case"
    )
    + r"\b)"
)
_WEIGHED = re.compile(  # what it has not
    r"(?i:\b"
    + _any(
        r"let; let's; consider\w*; think; look\w*; whether; compare; first; next; also; says?; said; both; either; or; may; might;"
        r" could; maybe; perhaps; possibl[ey]; close; sounds?; seems?; unclear; unsure; depends; needs?; see; know"
    )
    + r"\b)"
)
_SUPPOSED = re.compile(
    r"(?i:^\W{0,12}(?:if|had|were|suppose|assuming|unless|when)\b|\bwould\b[^.]*\b(?:if|had|only\s+when)\b|\bonly\s+(?:if|when)\b)"
)
_JOIN = r"(?:,|/|&|(?i:\bor\b|\band\b|\bnor\b|,\s*(?:or|and)\b))"
_MORE = re.compile(rf"\)?\s*{_JOIN}\s*(?!(?i:not\b)){L}(?!\s+(?i:is|are|fails?|was)\b)")
_LESS = re.compile(rf"{L}\s*{_JOIN}\s*(?i:{_NAME})?\(?$")
_CLAUSE = re.compile(
    r"(?<=[.;!?])(?<!^[A-Z]\.)\s+|\n+|[。；！？]|:\s+(?=\w{3,})|\s--\s|,?\s+(?=(?:but\s+(?!rather\b)(?!\(?[A-Z]\b\)?(?:[.,;!]|$))"
    r"|yet|however|so|therefore|hence|thus|while|whereas|although|though|which\s+means|leaving|because|since|making)\b)"
    r"|,\s+(?=and\s+\w+\s)",
    re.IGNORECASE | re.MULTILINE,
)
_WITHDRAWN = re.compile(
    r"(?i:\b(?:no|wait|actually|hmm|but)\b[^.]{0,30}\b(?:that|this|it)(?:'s|\s+is|\s+was|\s+can't\s+be|\s+cannot\s+be)\s+"
    r"(?:wrong|incorrect|false|not\s+right|not\s+it|a\s+mistake|right)\b)"
)
_THING = re.compile(
    r"(?i:\b(?:vitamin|hepatitis|plan|type|figure|grade|group|class|section|part|point|line|reaction|phase)\s+)$"
)
_VERB = _any(
    r"is; are; because; since; as; for; and; which; it is; fits; best; only; satisf\w+; works; holds; matches; "
    "makes; remains; must; has; seems; explains; here; rather; instead; over; not; in this; wins; stands; "
    "follows; being; the answer; as the"
)


def undressed(text: str) -> str:
    """A text without LaTeX and markdown around its letters, in plain quotes and dashes."""
    text = re.sub(r"\n[ \t]*\n\s*", "\n\n", re.sub(r"[^\S\n]+", " ", _DRESS.sub("", text)))
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
    for end in [*(match.end() for match in _CLAUSE.finditer(text)), len(text)]:
        clause = text[start:end]
        if len(clause) < 600:
            found += [(start + place, letter) for place, letter in _in_clause(clause)]
        start = end
    if not found:
        return _alone_at_the_end(text)
    at, letter = max(found, key=lambda pair: pair[0])
    return (at, None) if _WITHDRAWN.search(text, at) else (at, letter)


def _alone_at_the_end(text: str) -> tuple[int, str] | None:
    """The only letter of the last sentence that has one, where that sentence settles on something and denies nothing."""
    ends = [
        0,
        *(match.end() for match in re.finditer(r"(?<=[.!?])(?<!^[A-Z]\.)\s+|\n+", text, re.MULTILINE)),
        len(text),
    ]
    for start, end in list(itertools.pairwise(ends))[:-4:-1]:
        sentence = text[start:end]
        places = [match.start(1) for match in re.finditer(L, sentence) if is_letter(sentence, match.start(1))]
        if not places or len(sentence) > 300:
            continue
        unsettled = any(one.search(sentence) for one in (_WEIGHED, _OTHERS, _BAD, DENYING, _SUPPOSED))
        if len({sentence[place] for place in places}) > 1 or unsettled or sentence.rstrip().endswith("?"):
            return None
        return (start + places[-1], sentence[places[-1]]) if _CHOSEN.search(sentence) else None
    return None


def _in_clause(clause: str) -> list[tuple[int, str | None]]:
    if clause.rstrip().endswith("?") or _SUPPOSED.search(clause):
        return []
    found: list[tuple[int, str | None]] = []
    for match in _EXCEPT.finditer(clause):
        none_but = re.match(r"(?i:none|nothing|no\b)", match[0])
        good = re.fullmatch(r"(?i:fits?|works?|satisf\w+|holds?|correct|right|true|match\w*)", match[2])
        return [(match.start(1), match[1] if bool(none_but) == bool(good) else None)]
    for match in _NOT_BUT.finditer(clause):
        found.append((match.start(1), match[1]))
    if not _OTHERS.search(clause):
        found += [
            _told(clause, match) for pattern in _SAID for match in pattern.finditer(clause) if _meant(clause, match)
        ]
    return found


def _meant(clause: str, match: re.Match) -> bool:
    """Whether a match names an option, and denies nothing."""
    place = match.start(1)
    return is_letter(clause, place) and not DENYING.search(clause[:place]) and not _BAD.search(match[0])


def _told(clause: str, match: re.Match) -> tuple[int, str | None]:
    """(where, letter) of a match; no letter where another is joined to it."""
    before = clause[max(0, match.start(1) - 40) : match.start(1)]
    joined = _MORE.match(clause, match.end(1)) or _LESS.search(before)
    return match.start(1), None if joined else match[1]


def is_letter(text: str, place: int) -> bool:
    """Not the article, nor the one who writes, nor a letter that only names something (Vitamin C)."""
    letter, before, after = text[place], text[:place], text[place + 1 :]
    if before.endswith("("):
        return True
    if _THING.search(before[-30:]):
        return False
    if letter not in "AI":
        return True
    return not re.match(rf"\s+(?!{_VERB}\b)[a-z]", after) and not (
        letter == "I" and re.match(r"'|\s+(?:am|have|was)\b", after)
    )
