"""A cell of a table as text, exactly as the file has it."""

import datetime
import decimal
import re
from typing import Any

_HALF = re.compile("[\ud800-\udfff]")  # surrogates, halves of a character beyond 16 bits


def text_of(value: Any) -> str:
    """The text of a scalar: integers and decimals exactly, floats in the fewest digits that round-trip, dates and times
    in ISO 8601, booleans as in JSON, a missing value as "". A list of one scalar counts as that scalar.

    Raises ValueError with a phrase on what the cell holds; the caller puts the cell's place before it.
    """
    if isinstance(value, (list, tuple)) and len(value) == 1 and not isinstance(value[0], (list, tuple, dict)):
        value = value[0]
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValueError(f"holds {len(value)} bytes that are not UTF-8 text") from None
    if isinstance(value, (list, tuple)):
        raise ValueError(f"holds a list of {len(value)}, where one text is needed")
    if isinstance(value, dict):
        raise ValueError("holds an object, where one text is needed")
    text = str(value)
    if _HALF.search(text):
        raise ValueError("holds half a character (a lone surrogate)")
    return text


def one_space(text: str) -> str:
    """The text with every run of white space as one space; questions are compared in this form."""
    return " ".join(text.split())


def shortened(text: str, most: int = 60) -> str:
    """A text in quotes for a message, on one line of about so many characters."""
    line = one_space(text)
    return repr(line if len(line) <= most else line[: most - 1] + "…")
