"""Formulas as models type them in the one dialect of LaTeX that the parser reads: without dress, in plain signs."""

import re
import unicodedata

_SIGNS = {
    "−": "-", "–": "-", "‐": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": "/", "⁄": "/", "∕": "/",
    "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
    "≃": r"\approx ", "∈": r"\in ", "∪": r"\cup ", "∩": r"\cap ", "±": r"\pm ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "φ": r"\phi ", "⟨": r"\langle ",
    "⟩": r"\rangle ", "，": ",", "、": ",", "；": ";", "：": ":", "（": "(", "）": ")", "％": "%", "º": "°", "˚": "°",
    "\u00a0": " ", "\u202f": " ", "\u2009": " ", "…": "...", "′": "'", "’": "'", "‘": "'",
}  # fmt: skip
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_FUNCTIONS = "sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|exp|sinh|cosh|tanh|max|min|gcd|lcm"
_DRESS = r"text(?:bf|it|color)|math(?:bf|it|sf|ord|open|close)|boldsymbol|bm|underline|displaystyle|boxed|fbox|emph|ensuremath"
_TEXT = re.compile(r"\\(?:text(?:rm|sf|tt|normal)?|mathrm|mbox|hbox|operatorname\*?)\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_ALONE = re.compile(
    r"\\(?:displaystyle|textstyle|large|Large|LARGE|huge|Huge|small|normalsize|bf|rm|it|limits|nolimits|checkmark|quad|qquad|blacksquare|left|right"
    r"|[bB]ig{1,2}[lrm]?|[lr]?vert(?=\s*$))(?![A-Za-z])|\\[,;:! >\n]|(?<!\\)\\$"
)


def plain(text: str) -> str:
    """A formula, or a list of formulas and words, without what only decorates.

    Text commands stay, as `\\text{…}`; so do `°` and `%`, which the caller reads as units.
    """
    text = re.sub(r"(?:(\d+)\s?)?([½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞])", _vulgar, text)
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+", lambda m: "^{" + m[0].translate(_RAISED) + "}", text)
    text = re.sub(r"[₀₁₂₃₄₅₆₇₈₉]+", lambda m: "_{" + m[0].translate(_LOWERED) + "}", text)
    text = re.sub(r"√\s*(\d+(?:\.\d+)?|[A-Za-z]|\([^()]*\))", lambda m: r"\sqrt{" + m[1].strip("()") + "}", text)
    text = "".join(_SIGNS.get(sign, sign) for sign in text)
    return _undressed(_typed(text)).strip()


def _undressed(text: str) -> str:
    """Without dollars, markdown, spacing, sizes, colours and fonts."""
    text = re.sub(r",\s*\\!\s*", ",", text).replace("{,}", ",").replace("{:}", ":")
    text = re.sub(r"(?<=\d)(?:\\[,;: ]|~)(?=\d{3}(?!\d))", ",", text)
    text = re.sub(r"\\(?:[hv]space|phantom|hphantom|tag|label)\*?\s*\{[^{}]*\}", " ", text)
    text = re.sub(r"\\(?:color|textcolor)\s*(?:\[[^\]]*\])?\s*\{[^{}]*\}", "", text)
    text = re.sub(r"\\[()\[\]]|(?<!\\)\$|\*\*|(?<![\w}])`+|`+$|^>\s", " ", text)
    text = re.sub(r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\(?:degree|textdegree)(?![A-Za-z])|\\circ(?=\s*$)", "°", text)
    for _ in range(3):  # a font in a colour in a line
        text = re.sub(rf"\\(?:{_DRESS})\s*\{{((?:[^{{}}]|\{{[^{{}}]*\}})*)\}}", r"\1", text)
    text = re.sub(r"\\(?:lbrace|\{)", r"\\{", re.sub(r"\\(?:rbrace|\})", r"\\}", text))
    text = re.sub(r"\\left\s*\.|\\right\s*\.", "", text)
    text = _ALONE.sub(" ", text.replace(r"\\", "\0")).replace("\0", r"\\").replace("~", " ")
    text = re.sub(
        r"\\frac\s*\{\s*\\(?:text|mathrm)\s*\{([^{}]*)\}\s*\}\s*\{\s*\\(?:text|mathrm)\s*\{([^{}]*)\}\s*\}",
        r"\\text{\1/\2}",
        text,
    )
    return _TEXT.sub(lambda m: rf"\text{{{_TEXT.sub(lambda inner: inner[1], m[1])}}}", text)


def _typed(text: str) -> str:
    """What is typed without LaTeX (`sqrt(2)`, `pi/2`, `>=`, `1.5e3`), or in other commands for the same, in the parser's."""
    text = re.sub(r"\\(?:[dtc]frac|nicefrac|sfrac)(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\{\s*([^{}\\]+?)\s*\\over(?![A-Za-z])\s*([^{}]+?)\s*\}", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac\s*(\d|[A-Za-z])\s*(?=\{)", r"\\frac{\1}", text)
    text = re.sub(r"(\\frac\s*\{(?:[^{}]|\{[^{}]*\})*\})\s*(\d|[A-Za-z])", r"\1{\2}", text)
    text = re.sub(r"(?<![\\A-Za-z])sqrt(?=\s*[({\d])", r"\\sqrt", text)
    text = _rooted(re.sub(r"\\sqrt\s*(\d|[A-Za-z])", r"\\sqrt{\1}", text))
    text = re.sub(r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi ", text)
    text = re.sub(rf"(?<![\\A-Za-z])({_FUNCTIONS})(?=\s*\(|\s+\d|\s+[a-z]\b|\^)", r"\\\1", text)
    text = re.sub(r"(?<![\\A-Za-z])(?:infinity|infty|inf)(?![A-Za-z])", r"\\infty ", text)
    text = text.replace("<=", r"\le ").replace(">=", r"\ge ").replace("!=", r"\ne ").replace("=<", r"\le ")
    text = re.sub(r"\\log\s*_\s*\{?\s*e\s*\}?(?![A-Za-z])", r"\\ln ", text).replace(r"\lg ", r"\log ")
    text = re.sub(r"\\(?:leqslant|leqq|leq)(?![A-Za-z])", r"\\le ", text)
    text = re.sub(r"\\(?:geqslant|geqq|geq)(?![A-Za-z])", r"\\ge ", text)
    text = re.sub(r"\\(?:neq)(?![A-Za-z])", r"\\ne ", text)
    text = re.sub(r"\\lt(?![A-Za-z])", "<", re.sub(r"\\gt(?![A-Za-z])", ">", text))
    text = re.sub(r"\\(?:varnothing)(?![A-Za-z])", r"\\emptyset ", text)
    text = re.sub(r"\\(?:R|reals)(?![A-Za-z])", r"\\mathbb{R}", text)
    text = re.sub(r"\\(?:[dl]ots|cdots)(?![A-Za-z])", "...", text)
    text = re.sub(r"(?<=\d)\s*(?:\\times|\\cdot|\*|x|X)\s*(?=10\s*\^)", r"\\times ", text)
    text = re.sub(
        r"(?<![\w.])(\d+(?:\.\d+)?)[eE]([+-]?\d+)(?!\w)", lambda m: rf"{m[1]}\times 10^{{{int(m[2][:9])}}}", text
    )
    return re.sub(r"\*\*(?=\s*[-\d({])(?<=[\w)}]\*\*)", "^", text)


def _rooted(text: str) -> str:
    r"""`\sqrt(…)` → `\sqrt{…}`."""
    at = 0
    while match := re.compile(r"\\sqrt\s*\(").search(text, at):
        at = match.end()
        depth, end = 1, at
        while end < len(text) and depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        if depth:
            break
        text = text[: match.start()] + r"\sqrt{" + text[at : end - 1] + "}" + text[end:]
    return text


def _vulgar(match: re.Match) -> str:
    over, under = unicodedata.normalize("NFKC", match[2]).split("⁄")
    return (match[1] or "") + rf"\frac{{{over}}}{{{under}}}"


def without_text(text: str) -> str:
    """Without text commands; their words stay."""
    return _TEXT.sub(lambda match: match[1], text)
