"""Tables of questions: splits that share no question, columns, choices, and what is refused."""

import json

import datasets
import pytest

from specexit_jax.data.sources import Table, World
from specexit_jax.data.splits import sample

ROWS = [{"question": f"What is {i} + {i}?", "answer": f"It is twice that.\n#### {2 * i}"} for i in range(400)]
ALL = ("draft", "development", "calibration", "test")


def write(path, rows) -> str:
    if path.suffix == ".parquet":
        datasets.Dataset.from_list(rows).to_parquet(str(path))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("name", ["sums.jsonl", "sums.parquet"])
def test_one_split_is_divided_by_the_question(tmp_path, name):
    table = Table(write(tmp_path / name, ROWS), answer_after="####")
    found = {split: table.problems(split, 1000) for split in ALL}
    questions = [problem.question for problems in found.values() for problem in problems]
    assert sorted(questions) == sorted(row["question"] for row in ROWS)
    assert len(found["test"]) > 80 and 10 < len(found["development"]) < 80
    for split, problems in found.items():
        assert {(p.task, p.split, p.checker) for p in problems} == {("sums", split, "math")}
        assert all(p.question == f"What is {int(p.answer) // 2} + {int(p.answer) // 2}?" for p in problems)
    assert len({problem.id for problems in found.values() for problem in problems}) == len(ROWS)


def test_a_problem_keeps_its_split_and_id_wherever_it_stands(tmp_path):
    forth = Table(write(tmp_path / "a.jsonl", ROWS), task="sums").problems("test", 1000)
    back = Table(write(tmp_path / "b.jsonl", ROWS[::-1]), task="sums").problems("test", 1000)
    assert [problem.id for problem in forth] == [problem.id for problem in back[::-1]]


def test_as_many_as_asked_for_and_each_once(tmp_path):
    table = Table(write(tmp_path / "a.jsonl", ROWS[:40] + ROWS))
    some = table.problems("draft", 7)
    assert [p.id for p in some] == [p.id for p in table.problems("draft", 1000)][:7]
    assert len({p.question for p in table.problems("draft", 1000)}) == len(table.problems("draft", 1000))


def test_splits_named_one_by_one_share_no_question(tmp_path):
    (tmp_path / "sums").mkdir()
    write(tmp_path / "sums" / "train.jsonl", ROWS[:300])
    write(tmp_path / "sums" / "test.jsonl", ROWS[250:])
    feeds = "draft=train,development=train,calibration=train,test=test"
    table = Table(str(tmp_path / "sums"), split=feeds)
    found = {split: {p.question for p in table.problems(split, 1000)} for split in ALL}
    assert found["test"] == {row["question"] for row in ROWS[250:]}  # what both hold is tested, never trained on
    assert found["draft"] | found["development"] | found["calibration"] == {row["question"] for row in ROWS[:250]}
    assert sum(map(len, found.values())) == len(ROWS)
    with pytest.raises(ValueError, match="names no split for 'calibration'"):
        Table(str(tmp_path / "sums"), split="draft=train,test=test").problems("calibration", 1)


@pytest.mark.parametrize(
    ("row", "shown", "reference"),
    [
        ({"options": ["red", "blue"], "answer": 1}, "Which?\n\nA. red\nB. blue\n\nOne letter.", "B. blue"),
        ({"options": ["red", "blue"], "answer": "A"}, "Which?\n\nA. red\nB. blue\n\nOne letter.", "A. red"),
        (
            {"options": {"text": ["x", "y"], "label": ["1", "2"]}, "answer": "2"},
            "Which?\n\nA. x\nB. y\n\nOne letter.",
            "B. y",
        ),
    ],
)
def test_choices_stand_under_the_question(tmp_path, row, shown, reference):
    name = write(tmp_path / "quiz.jsonl", 2 * [row | {"question": "Which?"}])
    table = Table(name, split="test=test", checker="choice", choices="options", instruction="One letter.")
    (problem,) = table.problems("test", 5)
    assert (problem.question, problem.answer) == (shown, reference)


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (ROWS, {"question": "problem"}, "has no column 'problem': it has question, answer."),
        (ROWS, {"choices": "options"}, "has no column 'options'"),
        (ROWS, {"wrong": "answer, distractor"}, "has no column 'distractor'"),
        (ROWS, {"checker": "code"}, "name the column of its name in source.entry_point"),
        ([{"question": "Q", "answer": ""}], {"split": "test=x"}, "row 1 has nothing in column 'answer'"),
        (ROWS, {"split": "train=train"}, "feeds no split 'train': choose among test"),
        (ROWS, {"checker": "maths"}, "unknown checker 'maths'"),
        (ROWS, {"checker": "world"}, "knows the reasoning world's tasks alone"),
        (ROWS[:1], {}, "holds no problem for the split"),
    ],
)
def test_refusals(tmp_path, rows, settings, message):
    name = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(ValueError, match=message):
        for split in ("test", "draft"):
            Table(name, **settings).problems(split, 1)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.jsonl is not a file"):
        Table(str(tmp_path / "absent.jsonl")).problems("test", 1)


def test_a_corrupt_file_gets_one_sentence(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question": "Q"\nnonsense')
    with pytest.raises(ValueError, match=r"a\.jsonl.*cannot be read"):
        Table(str(tmp_path / "a.jsonl")).problems("test", 1)


def test_the_world_is_a_source_too():
    assert World(("gcd",)).problems("test", 3) == sample("test", 3, ("gcd",))
