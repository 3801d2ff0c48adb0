"""The list of the worst exits: which, in which order, and with harmless text."""

import dataclasses

import numpy as np
import pytest
from evaluated_case import HARMED, Words, records_of, signals_of, traces_and_labels
from markdown_it import MarkdownIt

from specexit_jax.evaluation.report.worst import fenced, reported_method, worst_exits, worst_markdown


@pytest.fixture
def case():
    traces, labels = traces_and_labels()
    return traces, records_of(traces, labels), signals_of(traces)


def test_harm_comes_first_by_confidence_then_the_least_saving(case):
    traces, records, signals = case
    late = next(i for i, r in enumerate(records) if r.id == "world/test/1" and r.method == "specexit")
    records[late] = dataclasses.replace(records[late], exit_index=15, tokens=18)
    found = worst_exits(records, traces, Words(), signals)
    assert [one.id for one in found[:3]] == ["world/test/4", "gsm8k/test/3", "world/test/1"]
    assert len(found) == 10 and {one.id for one in found if one.verdict == "right → wrong"} == set(HARMED)
    assert found[0].signals == tuple(signals["world/test/4"][4].tolist())  # of the boundary's own token
    assert (found[0].answer, found[0].full_answer, found[0].tokens, found[0].full_tokens) == ("no <0>", "9", 8, 19)
    assert found[1].thinking == Words().decode(range(3, 13))  # up to the boundary's own token


def test_a_harmed_problem_of_another_seed_is_not_told_by_this_seeds_trace(case):
    traces, records, _ = case
    other = [dataclasses.replace(record, seed=1) for record in records]
    assert worst_exits(other, traces, Words()) == []


def test_our_own_rule_is_shown_before_rivals_and_never_a_bound(case):
    _, records, _ = case
    renamed = {name: [dataclasses.replace(r, method=name) for r in records if r.exited] for name in
               ("deer", "oracle", "probe")}  # fmt: skip
    assert reported_method(records) == "specexit"
    assert reported_method(renamed["deer"] + renamed["oracle"]) == "deer"
    assert reported_method(renamed["deer"] + renamed["probe"]) == "probe"
    assert reported_method(renamed["oracle"]) is None


def test_without_signals_there_are_no_numbers_but_the_text(case):
    traces, records, _ = case
    told = worst_markdown(worst_exits(records, traces, None))
    assert "| – | – | – | 8 | 19 |" in told and "THINKING UP TO THE EXIT\n3 4 5 6 7\n" in told


@pytest.mark.parametrize(
    "text", ["```\nout\n```", "a ````` b", "~~~\n# x", "</pre><b>", "\x1b[31mred\x07", "", "x\r\ny"]
)
def test_a_fence_holds_whatever_is_in_it(text):
    tokens = MarkdownIt("commonmark").parse(f"before\n\n{fenced(text)}\n\nafter")
    assert [token.type for token in tokens if token.level == 0 and token.nesting != -1] == [
        "paragraph_open", "fence", "paragraph_open"]  # fmt: skip
    held = next(token.content for token in tokens if token.type == "fence")
    assert held.rstrip("\n") == text.replace("\x1b", "\ufffd").replace("\x07", "\ufffd").replace("\r", "")


def test_long_thinking_is_shown_by_its_end(case):
    traces, records, _ = case
    thinking = "x" * 2000 + " the end"
    (one,) = [one for one in worst_exits(records, traces, Words()) if one.id == "world/test/4"]
    told = worst_markdown([dataclasses.replace(one, thinking=thinking)])
    assert "… xxx" in told and "the end" in told and told.count("x") < 1000


def test_confidence_of_nan_never_hides_an_exit(case):
    traces, records, signals = case
    signals["world/test/4"][:] = np.nan
    assert len(worst_exits(records, traces, Words(), signals)) == 10
