"""Boundaries: the tokens after which thinking may stop, found from the texts of the vocabulary (docs/method.md §3).

A boundary is the last token that an exit keeps; `</think>` follows it. There are four kinds:
  paragraph  tokens whose text ends a paragraph ("\\n\\n", ".\\n\\n", "?\\r\\n\\r\\n", ...); the default. The blank line may hold
             spaces and tabs. Lines may end with \\n, \\r\\n, U+0085 or U+2028; U+2029 alone ends a paragraph
  marker     tokens that end a line before a discourse marker ("But", "Wait", ...). This kind also depends on the next token.
             In a verify step the next token is the target's sample of the same column, which is known for every column, so
             the result does not depend on how verify steps divide the text
  sentence   tokens that end a sentence (".", "?", "!", "…", closing quotes and brackets after them) before a token that begins
             with white space, which "3.14" has not; tokens that hold both; and all of `paragraph`
  released   tokens whose text is one of the six split texts of the released code
"""

import re
from collections.abc import Sequence

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt8

KINDS = ("paragraph", "marker", "sentence", "released")
MARKERS = ("But", "So", "Wait", "Hmm", "Alternatively")
RELEASED_SPLITS = ("\n\n", "\n\n\n", ".\n\n", ".\n\n\n", " \n\n", " \n\n\n")
_LINE_END, _STOP = np.uint8(1), np.uint8(2)
_END, _BLANK = r"(?:\r\n|\n|\x85|\u2028)", r"[ \t\v\f\xa0\u3000]*"
_LINE = re.compile(rf"(?:{_END}|\u2029)\Z")
_CLOSED = r"""["'”’»)\]}*]*"""
_SENTENCE = re.compile(rf"[.!?…]{_CLOSED}\Z")
_WHOLE_SENTENCE = re.compile(rf"(?:[.!?…]{_CLOSED}\s+|[。！？]{_CLOSED}\s*)\Z")
_PARAGRAPH = re.compile(rf"(?:{_END}{_BLANK}{_END}|\u2029)\Z")


@flax.struct.dataclass
class Boundaries:
    """Tables over the vocabulary. always: tokens that are a boundary whatever follows. before: those that are one before certain
    tokens, and after: these, as sets of bits that must meet: _LINE_END before a discourse marker, _STOP before white space."""

    always: Bool[Array, " V"]
    before: UInt8[Array, " V"]
    after: UInt8[Array, " V"]

    def mask(self, tokens: Int[Array, "B T"], following: Int[Array, "B T"]) -> Bool[Array, "B T"]:
        """Which tokens are boundaries. following: the token after each; in the loop, the target's sample of the column."""
        return self.always[tokens] | ((self.before[tokens] & self.after[following]) != 0)


@flax.struct.dataclass
class TokenBoundaries:
    """A table over the vocabulary of the tokens that are boundaries, whatever the next token is."""

    always: Bool[Array, " V"]

    def mask(self, tokens: Int[Array, "B T"], following: Int[Array, "B T"]) -> Bool[Array, "B T"]:
        return self.always[tokens]


def make_boundaries(token_texts: Sequence[str], kinds: Sequence[str] = ("paragraph",)) -> Boundaries:
    """Tables for the union of `kinds`. token_texts: the decoded text of every id, "" for special tokens.

    Raises ValueError on an unknown kind, and where no token of the vocabulary can be a boundary.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        named = ", ".join(unknown) or "(none given)"
        raise ValueError(f"unknown boundary kind {named}: choose among {', '.join(KINDS)}")
    always = np.zeros(len(token_texts), bool)
    if "paragraph" in kinds:
        always |= np.array([_PARAGRAPH.search(text) is not None for text in token_texts])
    if "released" in kinds:
        always |= np.array([text in RELEASED_SPLITS for text in token_texts])
    before, after = np.zeros((2, len(token_texts)), np.uint8)
    if "marker" in kinds:
        before |= _LINE_END * np.array([_LINE.search(text) is not None for text in token_texts], np.uint8)
        after |= _LINE_END * np.array([text.strip() in MARKERS for text in token_texts], np.uint8)
    if "sentence" in kinds:
        always |= np.array([_PARAGRAPH.search(text) or _WHOLE_SENTENCE.search(text) for text in token_texts], bool)
        before |= _STOP * np.array([_SENTENCE.search(text) is not None for text in token_texts], np.uint8)
        after |= _STOP * np.array([text[:1].isspace() for text in token_texts], np.uint8)
    if not always.any() and not before.any():
        raise ValueError(
            "no token of this vocabulary ends a paragraph (\\n\\n), so no exit is possible: use kind 'marker' or 'sentence'"
        )
    return Boundaries(jnp.asarray(always), jnp.asarray(before), jnp.asarray(after))


def boundary_positions(boundaries: Boundaries, ids: Sequence[int], thinking: int) -> list[int]:
    """Indices in `ids` of the boundaries among the first `thinking` tokens (those before `</think>`)."""
    tokens = np.asarray(ids, np.int64)
    mask = np.asarray(boundaries.always)[tokens]
    mask[:-1] |= (np.asarray(boundaries.before)[tokens[:-1]] & np.asarray(boundaries.after)[tokens[1:]]) != 0
    return np.flatnonzero(mask[:thinking]).tolist()
