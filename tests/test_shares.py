"""How one split of a data set is divided: by shares, by the question alone, and the same in all of a workdir."""

import json
import zlib

import pytest

from specexit_jax.annotation.rollout import require_same_shares
from specexit_jax.data.benchmarks import benchmarks
from specexit_jax.data.sources import Table
from specexit_jax.data.splits import SPLITS, split_of
from specexit_jax.storage.shards import write_report

ALL = ("draft", "development", "calibration", "test")
ROWS = [{"question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(800)]


@pytest.fixture(scope="module")
def name(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("own") / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


def divided(name: str, wanted=ALL, **settings) -> dict[str, set[str]]:
    return {split: {p.question for p in Table(name, **settings).problems(split, 1000)} for split in wanted}


def test_without_shares_the_division_is_what_it_was(name):
    kept = [(split, share) for split, (_, share) in SPLITS.items() if split in ALL]
    buckets = [split for split, share in kept for _ in range(share)]
    expected = {
        split: {row["question"] for row in ROWS if buckets[zlib.crc32(row["question"].encode()) % 40] == split}
        for split in ALL
    }
    assert divided(name) == expected == divided(name, shares="test=12,calibration=12,development=4,draft=12")
    assert Table(name).label == Table(name, shares="draft=12, development=4, calibration=12, test=12").label
    assert "shares" not in Table(name).label


def test_shares_divide_by_the_question(name):
    found = divided(name, shares="draft=60,development=10,calibration=15,test=15")
    assert set.union(*found.values()) == {row["question"] for row in ROWS} and sum(map(len, found.values())) == 800
    assert [round(len(found[split]) / 8) for split in ALL] == pytest.approx([60, 10, 15, 15], abs=5)
    two = divided(name, ("draft", "test"), shares="draft=1,test=3")
    assert len(two["draft"]) + len(two["test"]) == 800 and len(two["draft"]) == pytest.approx(200, abs=40)
    three = {
        "split": "draft=train,development=train,calibration=train",
        "shares": "draft=1,development=1,calibration=2",
    }
    assert len(divided(name, ("calibration",), **three)["calibration"]) == pytest.approx(400, abs=60)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shares": "draft=half,test=1"}, "is 'draft=half,test=1': draft has 'half', a whole number above 0 is needed"),
        ({"shares": "draft=0,test=1"}, "draft has '0', a whole number above 0"),
        ({"shares": "draft=-1,test=1"}, "draft has '-1'"),
        ({"shares": "draft=1.5,test=1"}, "draft has '1.5'"),
        ({"shares": "draft,test=1"}, "'draft' is not of the form draft=12"),
        ({"shares": "draft=1,draft=2"}, "'draft' stands twice"),
        ({"shares": "train=1,test=1"}, "'train' is no split of it: choose among draft, development, calibration, test"),
        ({"shares": "test=1", "split": "test=a"}, "source.shares divides nothing: no two splits of source.split share"),
        ({"shares": "draft=1,test=1", "split": "draft=a,test=b"}, "source.shares divides nothing"),
        ({"shares": "test=1,calibration=1", "split": "draft=a,test=a"}, "'calibration' is no split of it: choose among draft"),
    ],
)  # fmt: skip
def test_shares_that_divide_nothing_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        Table(name, **settings)


def test_a_split_without_a_share_is_named(name):
    with pytest.raises(
        ValueError, match="source.shares gives 'development' nothing: add development=N to 'draft=1,test=1'"
    ):
        Table(name, shares="draft=1,test=1").problems("development", 1)


def test_white_space_does_not_make_another_question(name, tmp_path):
    path = tmp_path / "spaced.jsonl"
    spaced = [
        row | {"question": row["question"].replace(" ", "  ", 1).replace("?", " ?\n").replace(" ?", "?")}
        for row in ROWS
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in spaced + ROWS))
    told = divided(str(path), task="sums")
    assert {split: {" ".join(q.split()) for q in told[split]} for split in ALL} == divided(name)
    assert sum(map(len, told.values())) == 800
    for split, rows in (
        ("train", ROWS[:300]),
        ("test", [row | {"question": f" {row['question']}".replace(" ", "\t")} for row in ROWS[250:]]),
    ):
        (tmp_path / "both").mkdir(exist_ok=True)
        (tmp_path / "both" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    feeds = Table(str(tmp_path / "both"), split="draft=train,test=test")
    assert len(feeds.problems("draft", 1000)) == 250 and len(feeds.problems("test", 1000)) == 550


def test_the_world_and_the_benchmarks_are_divided_as_before(tmp_path):
    world = [split for split, (_, share) in SPLITS.items() for _ in range(share)]
    assert split_of("What is  1 + 1?") == world[zlib.crc32(b"What is  1 + 1?") % 100]
    buckets = [split for split in ALL[:3] for _ in range(SPLITS[split][1])]
    rows = [f"What  is {i} + {i}?" for i in range(200)]
    lines = "".join(json.dumps({"question": row, "answer": "#### 1"}) + "\n" for row in rows)
    for split in ("train", "test"):
        (tmp_path / f"gsm8k_{split}.jsonl").write_text(lines if split == "train" else lines.replace("is", "was"))
    feeds = "draft=train,development=train,calibration=train,test=test"
    source = benchmarks(["gsm8k"], {"folder": str(tmp_path), "split": feeds})
    for split in ALL[:3]:
        own = [problem.question.partition("\n\n")[0] for problem in source.problems(split, 200)]
        assert own == [row for row in rows if buckets[zlib.crc32(row.encode()) % 28] == split]


def test_a_question_with_two_answers_is_told(tmp_path, capsys):
    path = tmp_path / "twice.jsonl"
    rows = [
        ("One and one?", "2"),
        ("Two and two?", "4"),
        ("One  and one?", "3"),
        ("Two and two?", "4"),
        ("One and one?", "5"),
    ]
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows))
    table = Table(str(path), split="test=train")
    assert [p.answer for p in table.problems("test", 9)] == ["2", "4"]
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "twice.jsonl: 2 rows ask what an earlier one asks and answer otherwise" in told
    assert "row 3 has '3', row 1 '2': 'One and one?'" in told and "the first answer is kept" in told
    assert [p.answer for p in table.problems("test", 2)] == [
        "2",
        "4",
    ] and capsys.readouterr().err == ""  # not read any further


def settings(name: str, **changes) -> dict:
    return {"source": Table(name, **changes).label}


def test_other_shares_are_refused_in_all_of_a_workdir(name, tmp_path):
    shares = "draft=1,development=1,calibration=1,test=2"
    write_report(tmp_path / "draft" / "rollout.json", settings(name, shares=shares), {})
    require_same_shares(tmp_path / "test", Table(name, shares=shares).label)
    require_same_shares(tmp_path / "test", "benchmarks")
    require_same_shares(tmp_path / "test", Table(name, answer="other").label)  # another data set
    for other in ("", "draft=2,development=1,calibration=1,test=1"):
        with pytest.raises(
            ValueError, match=r"draft/rollout.json was made with source.shares=draft=1,.*use another workdir"
        ):
            require_same_shares(tmp_path / "test", Table(name, shares=other).label)
    write_report(tmp_path / "draft" / "rollout.json", settings(name), {})
    with pytest.raises(ValueError, match=r"made with source.shares=draft=12,development=4,calibration=12,test=12"):
        require_same_shares(tmp_path / "test", Table(name, shares=shares).label)
