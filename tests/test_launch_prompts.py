"""launch.generate with a file of prompts, one answer a row, and one sentence for a wrong one."""

import json
import re

import pytest
from launch_case import call, folders

from specexit_jax import SpecExit

pytestmark = pytest.mark.usefixtures("unnoted")
ROWS = (
    {"question": "Count the legs.", "answer": "12"},
    {"id": "b", "prompt": "3*4?"},
    {"messages": [{"role": "user", "content": "4+4?"}]},
)


def test_prompts_of_a_file_are_answered_in_its_order(tiny, tmp_path, capsys, monkeypatch):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    arguments = (*folders(tiny), f"--prompts={path}", "--slots=2", "--max_new_tokens=16")
    code, out, err = call(capsys, monkeypatch, *arguments, "--json")
    assert code == 0 and err.startswith("method specexit: ") and len(err.splitlines()) == 1, err
    told = [json.loads(line) for line in out.splitlines()]
    assert [answer["id"] for answer in told] == ["0", "b", "2"]
    model = SpecExit.load(tiny / "target", tiny / "draft", draft_tokens=2)
    prompts = [ROWS[0]["question"], ROWS[1]["prompt"], ROWS[2]["messages"]]
    found = model.generate_many(prompts, slots=2, ids=["0", "b", "2"], max_new_tokens=16)
    assert [tuple(answer["ids"]) for answer in told] == [answer.ids for answer in found]
    code, out, err = call(capsys, monkeypatch, *arguments)
    assert code == 0 and not err, err
    assert re.findall("═══ (.*) ═══", out) == ["0", "b", "2"] and out.startswith("method specexit: ")
    assert all(answer.text in out for answer in found)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ('{"question": "a"}\n{"answer": "b"}\n', 'row 2 has no prompt: give rows with a column "question", "prompt" or'),
        ('{"question": "a", "prompt": "b"}', "row 1 has question and prompt, of which it needs one alone."),
        ('{"messages": [{"role": "user"}]}', "row 1, column 'messages': A message holds the texts 'role' and 'content'"),
        ('{"id": 1, "prompt": "a"}\n{"id": 1, "prompt": "b"}', "the id '1' stands twice"),
        ("{", "prompts.jsonl cannot be read: it is not valid JSON"),
        ("", "holds no row: give rows with"),
        ('{"question": "a"}\n{"question": 5}', "row 2, column 'question': A prompt is a text, a list of messages"),
        ('{"question": "\\ud800"}', "row 1, column 'question': The prompt is not valid Unicode: character 0 is half of a"),
        ('{"messages": "hello"}', "row 1, column 'messages': messages are a list of"),
        (None, "--prompts: there is no file "),
    ],
)  # fmt: skip
def test_wrong_rows_get_one_sentence(tiny, tmp_path, capsys, monkeypatch, rows, sentence):
    path = tmp_path / "prompts.jsonl"
    if rows is not None:
        path.write_text(rows)
    code, out, err = call(capsys, monkeypatch, *folders(tiny), f"--prompts={path}")
    assert code == 1 and not out and sentence in err and len(err.splitlines()) == 1, err
