"""Boundaries: which token texts end a paragraph, and the kind `marker`, which depends on the next token."""

import jax.numpy as jnp
import numpy as np
import pytest

from specexit_jax.exits.boundaries import boundary_positions, make_boundaries

TEXTS = ["a", "\n\n", ".\n\n", ":\n\n", "\n", "Wait", " So", "\n\nx", "?\n\n\n", "", " \n\n", ")\n\n"]


def test_every_paragraph_ending_token_is_a_boundary():
    assert np.flatnonzero(make_boundaries(TEXTS).always).tolist() == [1, 2, 3, 8, 10, 11]


@pytest.mark.parametrize(
    ("ends", "goes_on"),
    [
        ((".\r\n\r\n", "\r\n\r\n", "\n\r\n", "\r\n\n"), ("\r\n", ".\r\n", "\r\r", "\r\n\r", "\r\n\r\nx")),  # CRLF
        (("\n \n", ".\n\t\n", "\n\u3000\n", "\n\f\n"), ("\n ", "\n \nx", "\nx\n")),  # a line of blanks
        (("\u2029", ".\u2029", "\u2028\u2028", "\x85\x85"), ("\u2028", "\x85", "\f", "\v")),  # Unicode's ends of lines
    ],
)
def test_a_paragraph_ends_in_a_blank_line_however_lines_end(ends, goes_on):
    assert make_boundaries((*ends, *goes_on)).always.tolist() == [True] * len(ends) + [False] * len(goes_on)
    lines = make_boundaries(("\r\n", ".\r\n", "\u2028", "\n", "\r", "x\n "), ("marker",)).before
    assert lines.tolist() == [1, 1, 1, 1, 0, 0]


def test_released_kind_is_the_six_texts_only():
    assert np.flatnonzero(make_boundaries(TEXTS, ("released",)).always).tolist() == [1, 2, 10]


def test_marker_cuts_before_a_marker_at_a_line_start():
    boundaries = make_boundaries(TEXTS, ("paragraph", "marker"))
    ids = [0, 4, 5, 0, 5, 4, 0, 1, 5, 4, 6, 4]
    want = [1, 7, 9]  # the "\n" before "Wait", "\n\n", the "\n" before " So"; not "Wait" inside a line
    assert boundary_positions(boundaries, ids, len(ids)) == want
    tokens, following = jnp.array([ids[:-1]], jnp.int32), jnp.array([ids[1:]], jnp.int32)
    assert np.flatnonzero(boundaries.mask(tokens, following)[0]).tolist() == want


SENTENCES = ["x", ".", " It", "?", "3", "\n\n", " ok.)", "!\n", "。", "...", "wait. No", ' end."', "\n", ".\n\n", ""]


def test_sentence_cuts_where_a_sentence_ends_before_white_space():
    boundaries = make_boundaries(SENTENCES, ("sentence",))
    texts = ["x", ".", " It", "?", "3", ".", "3", " ok.)", " It", "!\n", "x", "。", "x", "...", "\n", "wait. No", ' end."', " It",
             ".\n\n", "x", "\n\n", ".", ""]  # fmt: skip
    ids = [SENTENCES.index(text) for text in texts]
    found = boundary_positions(boundaries, ids, len(ids))
    assert found == [1, 7, 9, 11, 13, 16, 18, 20]  # neither "?3" nor "3.3" nor "." before what is no text
    tokens, following = jnp.array([ids[:-1]], jnp.int32), jnp.array([ids[1:]], jnp.int32)
    assert np.flatnonzero(boundaries.mask(tokens, following)[0]).tolist() == found
    both = make_boundaries([*SENTENCES, "Wait"], ("marker", "sentence"))
    assert boundary_positions(both, [0, 12, 15, 1, 15, 1, 2], 7) == [1, 5]  # a marker's bit does not meet a sentence's


def test_paragraph_kind_ignores_what_follows():
    boundaries = make_boundaries(TEXTS)
    tokens = jnp.array([[4, 1, 0]], jnp.int32)
    assert boundaries.mask(tokens, jnp.full((1, 3), 5, jnp.int32)).tolist() == [[False, True, False]]


def test_positions_stop_where_thinking_does():
    assert boundary_positions(make_boundaries(TEXTS), [0, 1, 0, 1, 9, 1], 4) == [1, 3]


@pytest.mark.parametrize(
    "texts, kinds, message",
    [
        (TEXTS, ("clause",), "unknown boundary kind clause"),
        (TEXTS, (), "none given"),
        (["a", "b"], ("paragraph",), "no exit is possible"),
    ],
)
def test_refusals(texts, kinds, message):
    with pytest.raises(ValueError, match=message):
        make_boundaries(texts, kinds)
