"""A cell of a table as text: what stands in the file, whatever else it could be read as."""

import datetime
import decimal
import re
from typing import Any

_HALF = re.compile("[\ud800-\udfff]")  # of a character beyond 16 bits, which no encoding can write alone


def text_of(value: Any) -> str:
    """The text of a scalar: whole numbers and decimals exactly, floats in the fewest digits that give them back, days and
    times by ISO 8601, truth values as JSON has them, nothing as "". A list of one scalar is that scalar.

    Raises ValueError with what the cell holds, to follow its place in a sentence.
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
    """The text with every run of white space as one space: what questions are compared by."""
    return " ".join(text.split())


def shortened(text: str, most: int = 60) -> str:
    """A text in quotes for a message, on one line of about so many characters."""
    line = one_space(text)
    return repr(line if len(line) <= most else line[: most - 1] + "…")
