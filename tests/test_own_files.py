"""Files of users: a cell is read as the text in it, whatever it looks like, or one sentence names the place of the error."""

import datetime
import decimal
import gzip
import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from specexit_jax.data.sources import Table


def table(path, content, **settings) -> Table:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Table(str(path), **{"split": "test=train", "checker": "text", **settings})


def answers(path, content, **settings) -> list[str]:
    return [problem.answer for problem in table(path, content, **settings).problems("test", 99)]


def lines(values) -> str:
    return "".join(json.dumps({"question": f"Question {i}?", "answer": value}) + "\n" for i, value in enumerate(values))


def csv(values) -> str:
    return "question,answer\n" + "".join(f"Question {i}?,{value}\n" for i, value in enumerate(values))


WRITTEN = [
    ["2010-03-01", "2011-03-02"],
    ["2024-01-01T08:30:00", "2024-01-02T08:30:00"],
    ["08:30", "12:00:00"],
    ["None", "NA", "null", "nan", "N/A"],
    ["007", "012"],
    ["1.50", "2.50", "1e5", "-0.0", "+3"],
    ["100000000000000000001", "9" * 5000],
    ["true", "False", "inf"],
    ["½", "line\u2028separator", "it's"],
]


@pytest.mark.parametrize("values", WRITTEN, ids=lambda values: values[0])
def test_text_stays_as_it_is_written(tmp_path, values):
    assert answers(tmp_path / "a.jsonl", lines(values)) == values
    assert answers(tmp_path / "b.csv", csv(values)) == values
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "train.csv").write_text(csv(values))
    assert [
        p.answer for p in Table(str(tmp_path / "copy"), split="test=train", checker="text").problems("test", 99)
    ] == values


def test_numbers_of_json_stay_as_they_are_written(tmp_path):
    written = ["100000000000000000001", "1.50", "1e400", "-0.0", "12345678901234567890.5", "true", "9" * 5000]
    content = "".join(f'{{"question": "{i}?", "answer": {value}}}\n' for i, value in enumerate(written))
    assert answers(tmp_path / "a.jsonl", content) == written
    assert answers(tmp_path / "b.json", f"[{','.join(content.split(chr(10))[:-1])}]") == written


def test_typed_columns_of_parquet_are_told_exactly(tmp_path):
    columns = {
        "whole": pyarrow.array([2**63 + 1, 7], pyarrow.uint64()),
        "money": pyarrow.array([decimal.Decimal("1.50"), decimal.Decimal("0.00")], pyarrow.decimal128(6, 2)),
        "day": pyarrow.array([datetime.date(2010, 3, 1), datetime.date(2011, 3, 2)]),
        "time": pyarrow.array([datetime.datetime(2010, 3, 1, 8, 30), datetime.datetime(2010, 3, 1)], pyarrow.timestamp("ns")),
        "short": pyarrow.array([0.1, 2.5], pyarrow.float32()),
        "long": pyarrow.array([0.1, 1e22], pyarrow.float64()),
        "flag": pyarrow.array([True, False]),
        "code": pyarrow.array(["007", "012"]),
        "kind": pyarrow.array(["x", "y"]).dictionary_encode(),
        "bytes": pyarrow.array([b"x", "½".encode()]),
        "one": pyarrow.array([["007"], ["012"]]),
    }  # fmt: skip
    rows = pyarrow.table({"question": ["a?", "b?"], **columns})
    pyarrow.parquet.write_table(rows, tmp_path / "a.parquet")
    told = {
        name: [
            p.answer
            for p in Table(str(tmp_path / "a.parquet"), split="test=x", checker="text", answer=name).problems("test", 9)
        ]
        for name in columns
    }
    assert told == {
        "whole": ["9223372036854775809", "7"], "money": ["1.50", "0.00"], "day": ["2010-03-01", "2011-03-02"],
        "time": ["2010-03-01T08:30:00", "2010-03-01T00:00:00"], "short": ["0.1", "2.5"], "long": ["0.1", "1e+22"],
        "flag": ["true", "false"], "code": ["007", "012"], "kind": ["x", "y"], "bytes": ["x", "½"], "one": ["007", "012"],
    }  # fmt: skip


def test_files_of_windows_and_their_marks(tmp_path):
    content = 'question,answer\r\n"Two\r\nlines?",1\r\n\r\nOne?,"2, or ""3"""\r\n'
    found = table(tmp_path / "a.csv", b"\xef\xbb\xbf" + content.encode()).problems("test", 9)
    assert [(p.question, p.answer) for p in found] == [("Two\nlines?", "1"), ("One?", '2, or "3"')]
    marked = b"\xef\xbb\xbf" + lines(["007", "x"]).replace("\n", "\r\n").encode()
    assert answers(tmp_path / "a.jsonl", marked) == ["007", "x"]
    assert answers(tmp_path / "a.jsonl.gz", gzip.compress(marked)) == ["007", "x"]
    assert answers(tmp_path / "a.csv.gz", gzip.compress(csv(["007"]).encode())) == ["007"]
    assert answers(tmp_path / "a.tsv", csv(["1,5"]).replace("?,", "?\t").replace("n,", "n\t")) == ["1,5"]


def test_long_cells_and_json_in_its_forms(tmp_path):
    assert answers(tmp_path / "a.csv", csv(["x" * 200_000])) == ["x" * 200_000]
    rows = [{"question": "a?", "answer": "007"}, {"question": "b?", "answer": "012"}]
    for content in (json.dumps(rows), json.dumps(rows, indent=1), json.dumps({"version": 1, "data": rows}, indent=1)):
        assert answers(tmp_path / "a.json", content) == ["007", "012"]
    assert answers(tmp_path / "a.jsonl", json.dumps(rows)) == ["007", "012"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "question,answer\nQ?,1,2\n", r"a\.csv cannot be read: row 1 has 3 cells for 2 columns"),
        ("a.csv", 'question,answer\nQ?,1\n"Q,2\n', r"a\.csv cannot be read: .*line 3"),
        ("a.csv", "question,question,answer\nQ?,Q,2\n", "column 'question' stands twice"),
        ("a.csv", "question,answer\nQ?\n", r"a\.csv: row 1 has nothing in column 'answer'"),
        ("a.csv", "question,answer\n ,2\n", r"a\.csv: row 1 has nothing in column 'question'"),
        ("a.csv", "", r"a\.csv holds no row"),
        ("a.csv", "question,solution\nQ?,1\n", "has no column 'answer': it has question, solution"),
        ("a.csv", "question,answer\nQ?,caf\xe9\n".encode("latin-1"), r"a\.csv cannot be read: .*not UTF-8"),
        ("a.csv", "question,answer\nQ?,1\n".encode("utf-16"), r"a\.csv cannot be read: it is UTF-16, save it as UTF-8"),
        ("a.jsonl", '{"question": "Q", "answer": "1"}\n{"question": \n', r"a\.jsonl cannot be read: line 2 is not valid JSON"),
        ("a.jsonl", '{"question": "Q", "answer": "1"}\n[1]\n', r"a\.jsonl cannot be read: line 2 is not an object"),
        ("a.jsonl", '{"question": "Q", "answer": "1"}\n{"question": "R"}\n', r"row 2 has nothing in column 'answer'"),
        ("a.jsonl", '{"question": "Q", "answer": ["1", "2"]}\n', r"row 1, column 'answer', holds a list of 2"),
        ("a.jsonl", '{"question": "Q", "answer": {"x": "1"}}\n', r"row 1, column 'answer', holds an object"),
        ("a.jsonl", '{"question": "Q", "answer": "\\ud800"}\n', r"row 1, column 'answer', holds half a character"),
        ("a.jsonl", "\n\n", r"a\.jsonl holds no row"),
        ("a.json", "[1, 2]", r"a\.json cannot be read: it holds no list of objects"),
        ("a.json", "[{]", r"a\.json cannot be read: it is not valid JSON"),
        ("a.parquet", "nothing of the kind", r"a\.parquet cannot be read"),
        ("a.jsonl.gz", "nothing of the kind", r"a\.jsonl\.gz cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message) as raised:
        table(tmp_path / name, content).problems("test", 9)
    assert "\n" not in str(raised.value)


def test_a_folder_of_plain_files_is_read_as_they_are(tmp_path, monkeypatch):
    for split, values in (("train", ["007"]), ("test", ["None", "2010-03-01"])):
        (tmp_path / f"{split}.jsonl").write_text(lines(values))
    monkeypatch.setattr(datasets.DatasetBuilder, "as_streaming_dataset", None)  # which would read them otherwise
    found = Table(str(tmp_path), split="test=test", checker="text").problems("test", 9)
    assert [problem.answer for problem in found] == ["None", "2010-03-01"]
    monkeypatch.undo()
    with pytest.raises(ValueError, match="split 'dev', cannot be read"):
        Table(str(tmp_path), split="test=dev").problems("test", 9)


@pytest.mark.parametrize("module", ["json", "csv"])
def test_text_files_of_the_hub_are_read_as_they_are(tmp_path, monkeypatch, module):
    """Where a data set lies on the hub, its files have addresses that fsspec opens."""
    (tmp_path / f"train.{module}").write_text((lines if module == "json" else csv)(["007", "None", "2010-03-01"]))
    builder = datasets.load_dataset_builder(module, data_files={"train": str(tmp_path / f"train.{module}")})
    builder.config.data_files["train"][0] = f"file://{tmp_path}/train.{module}"
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda name, config: builder)
    found = Table("somebody/something", split="test=train", checker="text").problems("test", 9)
    assert [problem.answer for problem in found] == ["007", "None", "2010-03-01"]
