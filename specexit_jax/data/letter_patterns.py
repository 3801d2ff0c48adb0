"""Phrases around the letters of options: what calls one right, rules it out, or only speaks of it."""

import re

DRESS = re.compile(r"\\(?:text(?:bf|it|rm|sf)?|math(?:rm|bf|it|sf)|mbox|boxed|fbox|bf|rm)\b\s*")
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
SAID = [  # what calls the letter in its first group right
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
EXCEPT = re.compile(  # `everything except B fails`, `none but B fits`
    r"(?i:\b(?:every(?:thing|\s*one)?|all|each|any|none|nothing|no)\b[^.;]{0,40}?\b(?:except|but|besides|apart\s+from|other\s+than|save)\s+"
    rf"(?:for\s+)?){L}(?i:\s+(?:[\w']+\s+){{0,4}}?({_OUT}|{_IN}))"
)
NOT_BUT = re.compile(rf"(?i:(?:\bnot|n't)\b[^.;!?]{{1,60}}?\bbut\s+(?:rather\s+)?){L}")
DENYING = re.compile(
    r"(?i:n't\b|\b"
    + _any(
        r"not; never; neither; nor; cannot; rul(?:e|es|ed|ing) out; eliminat\w+; exclud\w+; reject\w*; discard\w*; "
        r"doubt\w*; unlikely; no longer; instead of; rather than; unlike; without; wrongly; mistak\w+; incorrectly"
    )
    + r"\b)"
)
OTHERS = re.compile(  # what others might take, or was taken before
    r"(?i:\b"
    + _any(
        r"(?:many|some|most)\s+(?:of\b|students?|people|would|may|might|will|readers?); students?; people; someone; "
        r"claim(?:s|ed)?; argue[sd]?; "
        r"others\s+(?:may|might|would|could|say|think|choose|pick); (?:one|you)\s+(?:might|may|could); tempt\w*; "
        "could be; might be; may be; at first; initially; first guess; leaned; leaning"
    )
    + r"\b)"
)
BAD = re.compile(
    r"(?i:\b"
    + _any(
        r"fail\w*; wrong; incorrect; false; weakest; worst; least; eliminat\w+; exclud\w+; impossible; trap; "
        r"mistake\w*; distractor; invalid; inconsistent; contradict\w*"
    )
    + r"\b)"
)
CHOSEN = re.compile(  # what a sentence that settles on its only letter has beside it
    r"(?i:\b"
    + _any(
        r"closest; nearest; exactly; precisely; best; most; must; has to; got to; only; therefore; thus; so; hence;"
        r" answer; correct; right; conclu\w+; required; asked; states?; describes?; fits?; match\w*; satisf\w+; works?; implies;"
        r" means; clearly; indeed; case"
    )
    + r"\b)"
)
WEIGHED = re.compile(  # what it has not
    r"(?i:\b"
    + _any(
        r"let; let's; consider\w*; think; look\w*; whether; compare; first; next; also; says?; said; both; either; or; may; might;"
        r" could; maybe; perhaps; possibl[ey]; close; sounds?; seems?; unclear; unsure; depends; needs?; see; know"
    )
    + r"\b)"
)
SUPPOSED = re.compile(
    r"(?i:^\W{0,12}(?:if|had|were|suppose|assuming|unless|when)\b|\bwould\b[^.]*\b(?:if|had|only\s+when)\b|\bonly\s+(?:if|when)\b)"
)
_JOIN = r"(?:,|/|&|(?i:\bor\b|\band\b|\bnor\b|,\s*(?:or|and)\b))"
MORE = re.compile(rf"\)?\s*{_JOIN}\s*(?!(?i:not\b)){L}(?!\s+(?i:is|are|fails?|was)\b)")
LESS = re.compile(rf"{L}\s*{_JOIN}\s*(?i:{_NAME})?\(?$")
CLAUSE = re.compile(
    r"(?<=[.;!?])(?<!^[A-Z]\.)\s+|\n+|[。；！？]|:\s+(?=\w{3,})|\s--\s|,?\s+(?=(?:but\s+(?!rather\b)(?!\(?[A-Z]\b\)?(?:[.,;!]|$))"
    r"|yet|however|so|therefore|hence|thus|while|whereas|although|though|which\s+means|leaving|because|since|making)\b)"
    r"|,\s+(?=and\s+\w+\s)",
    re.IGNORECASE | re.MULTILINE,
)
WITHDRAWN = re.compile(
    r"(?i:\b(?:no|wait|actually|hmm|but)\b[^.]{0,30}\b(?:that|this|it)(?:'s|\s+is|\s+was|\s+can't\s+be|\s+cannot\s+be)\s+"
    r"(?:wrong|incorrect|false|not\s+right|not\s+it|a\s+mistake|right)\b)"
)
THING = re.compile(
    r"(?i:\b(?:vitamin|hepatitis|plan|type|figure|grade|group|class|section|part|point|line|reaction|phase)\s+)$"
)
VERB = _any(
    r"is; are; because; since; as; for; and; which; it is; fits; best; only; satisf\w+; works; holds; matches; "
    "makes; remains; must; has; seems; explains; here; rather; instead; over; not; in this; wins; stands; "
    "follows; being; the answer; as the"
)
