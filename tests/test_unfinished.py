"""Unfinished forced answers: they do not agree, give no finished record, and too many of them are refused."""

import jax.numpy as jnp
import pytest
from annotated_case import END, PARAGRAPHS, SESSION, STOP, sure_everywhere, traces_and_labels, write_split

from specexit_jax.annotation.joined import join_labels
from specexit_jax.annotation.replay import outcomes, replay
from specexit_jax.annotation.unfinished import count_unfinished, require_finished
from specexit_jax.evaluation import bounds
from specexit_jax.evaluation.pipeline import calibrating
from specexit_jax.evaluation.records import record_of_replay
from specexit_jax.exits.policy import Deer, Threshold
from specexit_jax.exits.smoothers import smoother_named

OPEN = Threshold(jnp.array([-1e6, -1e6, 1e6], jnp.float32), smoother_named("none"))


def _cut(count: int, cut: int, length: int = 16, said: bool = True):
    """Labels at paragraphs; the first `cut` of the first answers did not end, though what there is of them would be right."""
    traces, labels = traces_and_labels(count, ("paragraph",))
    for label in labels[:cut]:
        label["forced_ids"] = [[6] * length, [6, STOP]]
        label["finished"] = [False, True]
        if not said:
            label["forced"] = [None, "4"]
            label["correct"] = label["agree"] = [False, True]
    if not said:
        for label in labels:
            del label["finished"]
    return traces, labels


@pytest.mark.parametrize("said", [True, False])
def test_an_exit_at_an_unfinished_answer_is_cut_and_counts_as_harm(said):
    traces, labels = _cut(3, 1, said=said)
    first, *others = replay(OPEN, traces, labels, sure_everywhere(traces), (END,))
    assert not first.finished and not first.correct and first.answer is None
    assert all(other.finished and other.correct for other in others)
    records = [record_of_replay("specexit", *pair) for pair in zip(traces, [first, *others], strict=True)]
    assert [record.finish for record in records] == ["length", "stop", "stop"]
    seen = outcomes(OPEN.smoother, traces, labels, sure_everywhere(traces))
    assert seen.correct.tolist() == [[False, True], [True, True], [True, True]]

    table = bounds.gather_boundaries(traces, labels)
    assert table.agree.tolist() == table.correct.tolist() == table.finished.tolist() == [False, *[True] * 5]
    (record, *_) = bounds.bound_records(table, table.starts[:-1], "ceiling")
    assert record.finish == "length" and record.exited and not record.correct
    assert bounds.as_outcomes(table, jnp.zeros(6)).correct.sum() == 5


def test_a_trial_that_stands_unfinished_is_cut_as_well():
    traces, labels = _cut(1, 1)
    (found,) = replay(Deer(jnp.float32(0.5), 16), traces, labels, None, (END,))
    assert found.boundary == 0 and not found.finished and record_of_replay("deer", traces[0], found).finish == "length"


def test_a_trace_whose_own_answer_was_cut_is_as_uncertain_as_one_that_never_closed():
    """In a larger buffer the full answer might be right. So the exit counts as harm unless its answer is right."""
    traces, labels = traces_and_labels(2, ("paragraph",))
    traces[0] |= {"finish": "length", "correct": False, "answer": None}
    assert outcomes(OPEN.smoother, traces, labels, sure_everywhere(traces)).closed.tolist() == [False, True]
    assert bounds.as_outcomes(bounds.gather_boundaries(traces, labels), jnp.zeros(4)).closed.tolist() == [False, True]
    (left, _) = replay(OPEN, traces, labels, sure_everywhere(traces), (END,))
    assert left.finished and left.correct


def test_calibration_refuses_what_it_cannot_know(tmp_path):
    folder = write_split(tmp_path / "development", *_cut(100, 2), kinds=("paragraph",))
    message = (
        "2 of 200 forced answers of .*development .1.0 %. were cut at max_answer 16 .* raise config.annotate.max_answer"
    )
    with pytest.raises(ValueError, match=message):
        calibrating.seen_split(SESSION, folder, ("none",), ("paragraph",), print)
    few = write_split(tmp_path / "few", *_cut(100, 1), kinds=("paragraph",))
    assert (
        require_finished(few, *_cut(100, 1)).summary().startswith("1 of 200 answers (0.50 %) cut at max_answer, 0 at")
    )


def test_what_the_buffer_cuts_a_decode_has_cut_there_too(tmp_path):
    """It is recognised by its length, below max_answer."""
    traces, labels = _cut(100, 60, length=5)
    found = require_finished(write_split(tmp_path / "short", traces, labels), traces, labels)
    assert (found.answers, found.cut, found.outside, found.share) == (200, 0, 60, 0.0)
    assert count_unfinished(traces, labels).cut == 60, "unless it is not known where annotation cut"


def test_labels_of_earlier_versions_tell_by_their_last_token():
    traces, labels = _cut(4, 2, said=False)
    labels[3]["forced"] = [None, "4"]  # ended, with no answer to be read in it
    assert [label["finished"][0] for label in join_labels(traces, labels)] == [False, False, True, True]
    assert count_unfinished(traces, labels, 16).cut == 2
    assert count_unfinished(traces, labels[:2], 16).answers == 2 * len(PARAGRAPHS)
    with pytest.raises(ValueError, match="annotate it again"):
        join_labels(traces, [labels[0] | {"finished": [True]}, *labels[1:]])
