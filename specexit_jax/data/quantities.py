"""Patterns of what can be an answer within a sentence: numbers with their units, pairs and lists in brackets."""

import re

_POWER = r"(?:\s*(?:\\times|[×x*·])\s*10\s*(?:\^\s*\{?[-−]?\d+\}?|[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)|[eE][+-]?\d+)"
_MONEY = r"(?:\\?[$€£¥₹]\s?|USD\s|EUR\s)"
_MEASURES = r"[kcmµn]?m|[km]?g|s|h|min|minutes?|hours?|seconds?|days?|weeks?|years?|meters?|feet|ft|inches|miles|cents?|dollars?"
_UNIT = rf"(?:\s*°[CF]?|\s?(?:%|percent\b|(?:{_MEASURES})(?:\s?[/^]\s?[\w²³]+)*(?![\w/])))"
_PI = r"(?:\\?pi|π)(?![a-z])(?:\s*/\s*\d+)?"
_DIGITS = r"[-−]?(?:\d{1,3}(?:[,.']\d{3})+(?![\d])(?:[.,]\d+)?|\d+)?(?:\.\d+|(?<=\d))(?:\.\.\.)?"
NUMBER = re.compile(
    rf"(?<![\w.]){_MONEY}?(?:\d+:\d+(?:\s?[ap]\.?m\b\.?)?"
    rf"|{_DIGITS}{_POWER}?(?:\s\d+(?=\s*/))?(?:\s*/\s*\d+)?(?:\s?{_PI}|\s?[½⅓⅔¼¾⅕⅛])?{_UNIT}?)",
    re.IGNORECASE,
)
COMPOUND = re.compile(r"(?<![\w.])\d+\s?[A-Za-z]+(?:,?\s(?:and\s)?\d+(?:\.\d+)?\s?[A-Za-z]+)+")  # 2 h 15 min
_INNER = r"(?:[^()\[\]A-Za-z\n]|\\?pi\b|sqrt|\\?inf\w*|∞)"
BRACKETS = re.compile(
    rf"(?<![\w\\])(?:\[\s*\[[^A-Za-z\n]{{1,200}}\]\s*\]|[(\[]{_INNER}{{1,60}},{_INNER}{{1,100}}[)\]]|\\?\{{[^{{}}A-Za-z\n]{{1,100}}\}})"
)
