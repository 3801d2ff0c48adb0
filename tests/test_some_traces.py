"""A subset of a large split: whole problems that closed their thinking, read without the others."""

import pytest
from annotated_case import SESSION, traces_and_labels, write_split

from specexit_jax.annotation.kinds import annotated_split
from specexit_jax.annotation.some_traces import some_traces
from specexit_jax.exits.units import problem_of


def split(folder, count=30):
    """Two samples of each problem; every fifth trace never closed its thinking."""
    traces, labels = traces_and_labels(count)
    for number, (trace, label) in enumerate(zip(traces, labels, strict=True)):
        name = f"a/draft/{number // 2}" + ("/sample-1" if number % 2 else "")
        trace["id"] = label["id"] = name
        if number % 5 == 4:
            trace["think_end"] = None
    return write_split(folder, traces, labels[::-1])


def test_whole_problems_are_drawn_until_there_are_enough(tmp_path):
    folder = split(tmp_path / "draft")
    every, labels = annotated_split(SESSION, folder, ("paragraph",))
    closed = {
        trace["id"]: (trace, label)
        for trace, label in zip(every, labels, strict=True)
        if trace["think_end"] is not None
    }
    found, told = some_traces(SESSION, folder, ("paragraph",), 10**6)
    assert {trace["id"] for trace in found} == set(closed)
    for trace, label in zip(found, told, strict=True):
        assert (trace, label) == closed[trace["id"]]
    few, own = some_traces(SESSION, folder, ("paragraph",), 20)
    assert 0 < sum(len(label["boundaries"]) for label in own) <= 20
    names = {problem_of(trace) for trace in few}
    assert {trace["id"] for trace in few} == {name for name, (trace, _) in closed.items() if problem_of(trace) in names}
    assert len({problem_of(trace) for trace in some_traces(SESSION, folder, ("paragraph",), 1)[0]}) == 1
    other = some_traces(SESSION, folder, ("paragraph",), 20, seed=1)[0]
    assert [trace["id"] for trace in other] != [trace["id"] for trace in few]


def test_a_trace_without_a_label_is_refused(tmp_path):
    traces, labels = traces_and_labels(4)
    with pytest.raises(ValueError, match="has no label"):
        some_traces(SESSION, write_split(tmp_path / "draft", traces, labels[1:]), ("paragraph",), 10)
    with pytest.raises(FileNotFoundError):
        some_traces(SESSION, tmp_path / "absent", ("paragraph",), 10)
