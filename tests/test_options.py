"""Options of choices in the forms in which they are published, and what is refused in one sentence."""

import csv
import json

import pytest

from specexit_jax.data.sources import Table

TEXTS = ["iron", "ice, cold", 'it\'s "water"', "wood"]
SHOWN = "Which?\n\n" + "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", TEXTS, strict=True))
LETTERED = "\n".join(f"{letter}) {text}" for letter, text in zip("ABCD", TEXTS, strict=True))
FORMS = {
    "arc": {"text": TEXTS, "label": list("ABCD")},
    "arc, numbered": {"text": TEXTS, "label": list("1234")},
    "medqa": dict(zip("ABCD", TEXTS, strict=True)),
    "medqa, with an option that other rows have": dict(zip("ABCDE", [*TEXTS, None], strict=True)),
    "named": dict(zip(["option_a", "option_b", "option_c", "option_d"], TEXTS, strict=True)),
    "list": TEXTS,
    "lettered list": LETTERED.split("\n"),
    "objects": [{"label": letter, "text": text} for letter, text in zip("ABCD", TEXTS, strict=True)],
    "objects, otherwise called": [{"key": letter, "value": text} for letter, text in zip("ABCD", TEXTS, strict=True)],
    "objects of one": [{letter: text} for letter, text in zip("ABCD", TEXTS, strict=True)],
    "pairs": [[letter, text] for letter, text in zip("ABCD", TEXTS, strict=True)],
    "texts alone": {"text": TEXTS},
    "objects without labels": [{"text": text} for text in TEXTS],
    "json in a string": json.dumps(TEXTS),
    "python in a string": repr(TEXTS),
    "numpy in a string": "[" + "\n ".join(repr(text) for text in TEXTS) + "]",
    "pandas in a string": f"{{'text': array({TEXTS[:2]!r}, dtype=object), 'label': array(['A', 'B'], dtype=object)}}",
    "lines": LETTERED,
    "one line": LETTERED.replace("\n", " , ").replace("A)", "a )").replace("B)", "b )").replace("C)", "c )").replace("D)", "d )"),
    "bare lines": "\n".join(TEXTS),
}  # fmt: skip


def problem(path, row: dict, **settings):
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerow(row)
    else:
        path.write_text(json.dumps(row) + "\n")
    table = Table(str(path), split="test=train", checker="choice", **{"choices": "options", **settings})
    (found,) = table.problems("test", 9)
    return found


@pytest.mark.parametrize("form", FORMS)
def test_every_form_reads(tmp_path, form):
    labels = "1234" if form == "arc, numbered" else "ABCD"
    count = 2 if form.startswith("pandas") else 4
    for name in ("a.jsonl", "a.csv"):  # in a CSV file Python's notation of them stands in a cell
        found = problem(tmp_path / name, {"question": "Which?", "options": FORMS[form], "answer": labels[1]})
        assert found.question == "\n".join(SHOWN.split("\n")[: 2 + count])
        assert found.answer == "B. ice, cold"


@pytest.mark.parametrize("columns", ["A,B,C,D", "opa,opb,opc,opd", "option1, option2, option3, option4"])
def test_options_in_columns_of_their_own(tmp_path, columns):
    cells = dict(zip([name.strip() for name in columns.split(",")], TEXTS, strict=True))
    row = {"question": "Which?", **cells, "answer": "b"}
    found = problem(tmp_path / "a.csv", row, choices=columns)
    assert (found.question, found.answer) == (SHOWN, "B. ice, cold")
    shorter = problem(tmp_path / "b.jsonl", row | {list(cells)[-1]: None}, choices=columns)
    assert shorter.question == SHOWN.rpartition("\n")[0]


@pytest.mark.parametrize(
    ("answer", "settings"),
    [
        ("C", {}), ("c", {}), ("(C)", {}), ("C.", {}), (2, {}), ("2", {}), ("it's \"water\"", {}), ("It's  \"Water\"", {}),
        ("C) it's \"water\"", {}), ("3", {"answer_as": "index1"}), (3, {"answer_as": "index1"}), (2, {"answer_as": "index0"}),
        ("C", {"answer_as": "label"}), ("it's \"water\"", {"answer_as": "text"}), ("So it is #### C", {"answer_after": "####"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["list", "arc", "medqa"])
def test_answers_by_label_place_or_words(tmp_path, answer, settings, form):
    row = {"question": "Which?", "options": FORMS[form], "answer": answer}
    assert problem(tmp_path / "a.jsonl", row, **settings).answer == 'C. it\'s "water"'


def test_numbers_among_the_options_are_not_mistaken_for_places(tmp_path):
    row = {"question": "How many?", "options": ["3", "1", "0", "2"]}
    assert problem(tmp_path / "a.jsonl", row | {"answer": 1}).answer == "B. 1"  # a number beside texts is a place
    assert problem(tmp_path / "a.jsonl", row | {"answer": 2}).answer == "C. 0"
    for answer, options in (("2", row["options"]), (2, [3, 1, 0, 2]), ("2", "['3' '1' '0' '2']")):
        asked = row | {"answer": answer, "options": options}
        with pytest.raises(
            ValueError, match="row 1, column 'answer': '2' is the words of one option and the place of another"
        ):
            problem(tmp_path / "a.jsonl", asked)
        assert problem(tmp_path / "a.jsonl", asked, answer_as="text").answer == "D. 2"
        assert problem(tmp_path / "a.jsonl", asked, answer_as="index0").answer == "C. 0"


def test_numbered_columns_are_not_guessed_at(tmp_path):
    row = {"question": "Which?", "sol1": "red", "sol2": "blue", "answer": 1}
    with pytest.raises(ValueError, match="'1' may name column sol1, or count from 0: give source.answer_as"):
        problem(tmp_path / "a.jsonl", row, choices="sol1,sol2")
    assert problem(tmp_path / "a.jsonl", row, choices="sol1,sol2", answer_as="index0").answer == "B. blue"
    assert problem(tmp_path / "a.jsonl", row, choices="sol1,sol2", answer_as="label").answer == "A. red"


@pytest.mark.parametrize(
    ("options", "answer", "message"),
    [
        (None, "A", "row 1 has nothing in column 'options'"),
        ("red, blue", "A", "row 1, column 'options': 'red, blue' is not a list of options"),
        ("[red, blue]", "A", "'\\[red, blue\\]' is not a list of options"),
        (["red"], "A", "one option"),
        ([], "A", "row 1 has nothing in column 'options'"),
        (["red", ""], "A", "option 2 is empty"),
        (["red", ["blue", "green"]], "A", "option 2 holds a list of 2"),
        ({"text": ["red", "blue"], "label": ["A"]}, "A", "1 labels for 2 options"),
        ({"text": ["red", "blue"], "label": ["A", "A"]}, "A", "label 'A' stands twice"),
        ([f"option {i}" for i in range(27)], "A", "27 options, and letters for 26"),
        (["red", "blue"], "C", "row 1, column 'answer': 'C' is no option of A, B"),
        (["red", "blue"], 2, "'2' is no option of A, B"),
        (["red", "blue"], "green", "'green' is no option of A, B"),
        (["red", "Red"], "red", "'red' is the words of 2 options"),
        (["red", "blue"], "", "row 1 has nothing in column 'answer'"),
        ([{"colour": "red"}, {"colour": "blue"}], "A", "stands twice"),
    ],
)
def test_what_is_not_understood_is_named(tmp_path, options, answer, message):
    with pytest.raises(ValueError, match=message) as raised:
        problem(tmp_path / "a.jsonl", {"question": "Which?", "options": options, "answer": answer})
    assert "a.jsonl" in str(raised.value) and "\n" not in str(raised.value)


def test_an_unknown_way_of_answers_is_refused():
    with pytest.raises(ValueError, match="source.answer_as is 'place': choose label, text, index0 or index1"):
        Table("a.jsonl", checker="choice", choices="options", answer_as="place")
    with pytest.raises(ValueError, match="source.answer_as is for options: name their column in source.choices"):
        Table("a.jsonl", answer_as="index0")
