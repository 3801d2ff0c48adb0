"""The end of thinking in text: the automaton over tokens against a search in the joined text."""

import jax
import numpy as np
import pytest

from specexit_jax.decoding.loop.closing import closing_table, completes_text
from specexit_jax.decoding.oracle import _closed_by

END = "</think>"
TEXTS = (
    *("<", "/", "</", "think", ">", "th", "ink", "ink>", ">\n", ">\n\n", " </", ")</", "x", "<<", "</think>", "</thi", "k"),
    *("a</think>b", "nk>\n", "<think>", "\n", "</think", ">x</", "/think></th", "\ufffd<", "t", "h", "i", "n"),
)  # fmt: skip


def searched(ids) -> tuple[list[bool], list[int]]:
    """For every token: (whether it completes one more `</think>` in the text, the number of ids which that spans)."""
    starts = np.cumsum([0, *(len(TEXTS[token]) for token in ids)])
    text, complete, runs = "".join(TEXTS[token] for token in ids), [], []
    for number in range(len(ids)):
        found = text.find(END, max(starts[number] - len(END) + 1, 0), starts[number + 1])
        complete.append(found >= 0)
        runs.append(number + 1 - int(np.searchsorted(starts, found, "right") - 1) if found >= 0 else 0)
    return complete, runs


def test_whatever_tokens_write_the_end():
    rng, seen = np.random.default_rng(0), set()
    table, tries = closing_table(TEXTS, END), jax.jit(completes_text)
    assert table.shape == (8, len(TEXTS)) and table.dtype == np.int8
    ids = rng.integers(0, len(TEXTS), (4000, 12))
    for row in ids[::2]:  # mostly tokens that continue `</think>`
        for place in range(1, 12):
            goes_on = [token for token in range(len(TEXTS)) if 0 < table[table[0, row[place - 1]] % 8, token] < 16]
            row[place] = rng.choice(goes_on) if goes_on and rng.random() < 0.8 else row[place]
    ids = ids.astype(np.int32)
    before = np.concatenate([np.full((len(ids), 3), -1, np.int32), ids[:, :4]], axis=1)
    complete, runs = map(np.asarray, tries(ids[:, 4:], before, table))
    for row, found, run in zip(ids, complete, runs, strict=True):
        expected, reaches = searched(row.tolist())
        first = next((number for number, here in enumerate(expected) if here), 11)  # after it there is no thinking
        assert found[: max(first - 3, 0)].tolist() == expected[4 : first + 1], [TEXTS[token] for token in row]
        assert _closed_by((), table, row[: first + 1].tolist()) == reaches[first]
        if first >= 4 and expected[first]:
            assert run[first - 4] == reaches[first]
            seen.add(reaches[first])
    assert seen >= {1, 2, 3, 4}


def test_a_token_without_text_begins_anew_and_nothing_precedes_the_first():
    table = closing_table(["</think", ">", ""], END)
    found, runs = completes_text(np.array([[0, 2, 1, 0, 1]], np.int32), np.full((1, 7), -1, np.int32), table)
    assert found.tolist() == [[False, False, False, False, True]] and int(runs[0, 4]) == 2


def test_an_end_that_begins_anew_within_itself_is_refused():
    with pytest.raises(ValueError, match="occurs in it again"):
        closing_table(["a"], "aba")
