"""Shares of a data set's questions: which of the pipeline's splits a question belongs to, by its text alone."""

import zlib
from collections.abc import Sequence

from specexit_jax.data.splits import SPLITS

# a question in two of a table's splits goes to the first of these
FED = ("test", "calibration", "development", "draft")
_ORDER = [name for name in SPLITS if name in FED]
DEFAULT = {name: SPLITS[name][1] for name in _ORDER}


def parts_of(field: str, text: str, example: str) -> dict[str, str]:
    """{name: value} of `name=value,name=value`; raises ValueError, one sentence."""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, sign, value = (word.strip() for word in part.partition("="))
        if not sign:
            raise ValueError(f"{field} is {text!r}: {name!r} is not of the form {example}.")
        if name in found:
            raise ValueError(f"{field} is {text!r}: {name!r} stands twice.")
        found[name] = value
    return found


def shares_of(text: str, feeds: dict[str, str]) -> dict[str, int]:
    """The shares given by source.shares; if it is empty, those of the reasoning world. feeds: the data set's split that
    feeds each of ours. Raises ValueError with one sentence for a malformed share, or if there is nothing to divide."""
    if not text:
        return DEFAULT
    if len(set(feeds.values())) == len(feeds):
        raise ValueError("source.shares divides nothing: no two splits of source.split share a data set's split.")
    found = parts_of("source.shares", text, "draft=12")
    for name, value in found.items():
        if name not in feeds:
            raise ValueError(
                f"source.shares is {text!r}: {name!r} is no split of it: choose among {', '.join(n for n in _ORDER if n in feeds)}."
            )
        if not value.isascii() or not value.isdecimal() or not int(value):
            raise ValueError(f"source.shares is {text!r}: {name} has {value!r}, a whole number above 0 is needed.")
    return {name: int(found[name]) for name in _ORDER if name in found}


def written(shares: dict[str, int]) -> str:
    """The shares in the form of source.shares."""
    return ",".join(f"{name}={share}" for name, share in shares.items())


def split_by(question: str, shares: dict[str, int], names: Sequence[str]) -> str:
    """Which of the splits `names`, all fed by one split of the data set, a question belongs to."""
    kept = {name: share for name, share in shares.items() if name in names}
    bucket = zlib.crc32(question.encode()) % sum(kept.values())
    for name, share in kept.items():
        bucket -= share
        if bucket < 0:
            return name
    raise AssertionError("the shares of the splits do not cover the hash's range")
