"""Rows on disk and their index: the file is the truth, whatever stands beside it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from specexit_jax.storage import jsonl, row_index, shards
from specexit_jax.storage.jsonl import append_jsonl, drop_torn_line
from specexit_jax.storage.row_index import entries_of, index_path
from specexit_jax.storage.rows import Rows, Unread, brief_rows, by_id, ids_in, taken, whole_rows

ROOT = Path(__file__).resolve().parent.parent


def rows(start: int, stop: int) -> list[dict]:
    """Like traces with labels in one: texts hold what could be taken for keys."""
    return [
        {"id": f"é/{n}", "problem": f"é/{n // 2}", "boundaries": [1, 2][: n % 3], "prompt_ids": [7] * (n % 2),
         "ids": list(range(n)), "text": f'"ids": [, "correct": {n}', "forced_ids": [[n] * 3, [], [1]][: n % 3],
         "correct": True, "seed": n}
        for n in range(start, stop)
    ]  # fmt: skip


@pytest.fixture
def path(tmp_path) -> Path:
    append_jsonl(tmp_path / "traces.jsonl", rows(0, 5))
    return tmp_path / "traces.jsonl"


def nothing_scanned(monkeypatch) -> None:
    monkeypatch.setattr(row_index, "_entry", lambda *_: pytest.fail("a row was parsed that the index holds"))


def test_rows_are_read_whole_or_brief_in_any_order(path):
    found, wanted = Rows([path]), rows(0, 5)
    assert found == wanted and found.ids == tuple(row["id"] for row in wanted) and found[3] == wanted[3]
    assert found[1:4:2] == wanted[1:4:2] and found.take([4, 0]) == [wanted[4], wanted[0]]
    assert found.of(["é/2", "é/1"]) == [wanted[2], wanted[1]] and found[-1] == wanted[-1]
    assert found.column("ids") == [0, 1, 2, 3, 4] and found.column("problem")[4] == "é/2"
    assert [list(one) if hasattr(one, "__len__") else one for one in found.column("forced_ids")] == [
        0,
        [3],
        [3, 0],
        0,
        [3],
    ]
    for short, row in zip(found.brief(), wanted, strict=True):
        assert {key: value for key, value in short.items() if key not in row_index.LONG} == {
            key: value for key, value in row.items() if key not in row_index.LONG
        }
        assert [len(short[key]) for key in row_index.LONG] == [len(row[key]) for key in row_index.LONG]
        assert [len(one) for one in short["forced_ids"]] == [len(one) for one in row["forced_ids"]]
    four = found.brief()[4]
    for use in (lambda: list(four["ids"]), lambda: four["ids"][0], lambda: 3 in four["ids"]):
        with pytest.raises(TypeError, match="left on disk"):
            use()
    assert found.brief().whole() == wanted and found.mapped(lambda row: {"n": row["seed"]})[2:] == [
        {"n": n} for n in (2, 3, 4)
    ]


def test_lists_and_rows_on_disk_are_used_alike(path):
    found, wanted = Rows([path]), rows(0, 5)
    for each in (found, wanted):
        assert ids_in(each) == ids_in(wanted) and taken(each, [2, 2]) == [wanted[2], wanted[2]]
        assert by_id(each)["é/3"] == wanted[3] and whole_rows(brief_rows(each)) == wanted
    assert isinstance(brief_rows(found)[4]["ids"], Unread) and "absent" not in found.by_id


def test_a_brief_row_costs_no_bytes_of_long_values(path, monkeypatch):
    append_jsonl(path, [{"id": "long", "ids": [1] * 50_000, "text": "x", "seed": 1}])
    found, read = Rows([path]), []
    monkeypatch.setattr(
        os, "pread", lambda number, size, start, own=os.pread: read.append(size) or own(number, size, start)
    )
    assert found.brief()[5]["seed"] == 1 and sum(read) < 100
    assert len(found[5]["ids"]) == 50_000 and sum(read) > 100_000


def test_what_is_indexed_is_not_parsed_again(path, monkeypatch):
    first = entries_of(path)
    with monkeypatch.context() as patch:
        nothing_scanned(patch)
        assert entries_of(path) == first and Rows([path]) == rows(0, 5)
    append_jsonl(path, rows(5, 7))
    seen, own = [], row_index._entry
    monkeypatch.setattr(row_index, "_entry", lambda *parts: seen.append(parts) or own(*parts))
    assert Rows([path]) == rows(0, 7) and len(seen) == 2


def test_the_writer_indexes_what_it_appends(tmp_path, monkeypatch):
    with shards.own_rows(tmp_path, "traces", "rollout", {}) as kept:
        kept.append(rows(0, 3))
        kept.append(rows(3, 4))
    with shards.own_rows(tmp_path, "traces", "rollout", {}) as kept:
        kept.append(rows(4, 5))
    nothing_scanned(monkeypatch)
    assert shards.read_shards(tmp_path, "traces") == rows(0, 5) == shards.held(tmp_path, "traces")
    assert shards.ids_of(tmp_path, "traces") == {f"é/{n}" for n in range(5)} and shards.held(tmp_path, "labels") == []


def test_a_torn_row_is_no_row_and_only_the_end_is_read_for_it(path, monkeypatch):
    with path.open("ab") as file:
        file.write(b'\n{"id": "torn", "ids": [1, 2')
    assert len(entries_of(path)) == 5
    monkeypatch.setattr(jsonl, "_BLOCK", 8)
    drop_torn_line(path)
    append_jsonl(path, rows(5, 6))
    assert Rows([path]) == rows(0, 6) == list(jsonl.read_jsonl(path))
    for content in (b"", b"no line end", b"\n"):
        path.write_bytes(content)
        drop_torn_line(path)
        assert path.read_bytes() == (b"\n" if content == b"\n" else b"")
        assert Rows([path]) == []


@pytest.mark.parametrize("harm", ["torn", "gone", "twice", "gap", "garbage", "other"])
def test_a_broken_index_is_mended(path, harm):
    entries_of(path)
    beside = index_path(path)
    lines = beside.read_bytes().splitlines(keepends=True)
    broken = {
        "torn": b"".join(lines)[:-9],
        "twice": b"".join([*lines[:3], *lines[1:]]),  # two processes added the same rows
        "gap": b"".join([*lines[:2], *lines[3:]]),
        "garbage": lines[0] + b"\x00\xff{}\n" + lines[1],
        "other": b"".join(lines).replace(b"/4", b"/9"),
    }
    beside.write_bytes(broken.get(harm, b""))
    if harm == "gone":
        beside.unlink()
    assert Rows([path]) == rows(0, 5)
    append_jsonl(path, rows(5, 6))
    assert Rows([path]) == rows(0, 6) and Rows([path]) == rows(0, 6)
    if harm != "twice":
        assert len(beside.read_bytes().splitlines()) == 6


def test_a_file_that_was_changed_is_indexed_anew(path):
    before = Rows([path])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:1] + lines[2:]))
    assert Rows([path]) == [*rows(0, 1), *rows(2, 5)]
    with pytest.raises(ValueError, match=r"traces.jsonl.* line \d is not valid JSON|no longer holds é/"):
        list(before.take([3]))
    path.write_text(path.read_text().replace("é/2", "é/8"))
    with pytest.raises(ValueError, match=r"no longer holds é/2 where .*\.traces\.index says: remove that file"):
        list(Rows([path]))


def test_an_index_that_cannot_be_stored_is_kept_in_memory(path, monkeypatch):
    monkeypatch.setattr(row_index, "alone_at", lambda _: (_ for _ in ()).throw(OSError("no locks")))
    assert Rows([path]) == rows(0, 5) and row_index.index_more(path, 0) == 0
    assert not index_path(path).read_bytes()


def test_rows_of_other_forms_are_read(tmp_path):
    """As an editor or another program wrote them: brief rows are then read whole."""
    for number, row in enumerate(rows(2, 5)):
        forms = [dict(sorted(row.items(), reverse=True)), {"ids": row["ids"]} | row, row | {"more": {"text": [1]}}]
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(json.dumps(form, indent=None, separators=(",", ":")) + "\n\n" for form in forms[:1]))
        append_jsonl(path, [form | {"id": f"{n}"} for n, form in enumerate(forms[1:])])
        found = Rows([path])
        assert found[0] == row and found[2] == forms[2] | {"id": "1"} and len(found) == 3
        for short, whole in zip(found.brief(), found, strict=True):
            assert {key: len(short[key]) for key in row_index.LONG} == {key: len(whole[key]) for key in row_index.LONG}
            assert {**whole, **short} == short and short.keys() == whole.keys()


def test_what_is_no_row_is_told_by_its_line(path):
    for line, said in [("[1]", "is not a JSON object"), ('{"n": 1}', "has no id"), ("{", "is not valid JSON")]:
        path.write_text('{"id": "a"}\n\n' + line + "\n")
        with pytest.raises(ValueError, match=rf"traces.jsonl: line 3 {said}.*mend or remove it"):
            Rows([path])


def test_of_several_files_the_first_row_of_an_id_counts(tmp_path):
    one, two = tmp_path / "traces-00000-of-00002.jsonl", tmp_path / "traces-00001-of-00002.jsonl"
    append_jsonl(one, rows(0, 3))
    append_jsonl(two, [rows(2, 3)[0] | {"seed": 99}, *rows(3, 4)])
    assert shards.read_shards(tmp_path, "traces") == rows(0, 4)


def test_processes_index_while_another_appends(path):
    """Four readers start on a file without an index while rows are appended: all see whole rows, and the index is right."""
    program = (
        "import sys; from pathlib import Path; from specexit_jax.storage.row_index import entries_of\n"
        "found = [[e.id for e in entries_of(Path(sys.argv[1]))] for _ in range(30)]\n"
        "assert all(ids == [f'é/{n}' for n in range(len(ids))] and len(ids) >= 5 for ids in found), found"
    )
    readers = [subprocess.Popen([sys.executable, "-c", program, str(path)], cwd=ROOT) for _ in range(4)]
    with shards.own_rows(path.parent, "traces", "rollout", {}) as kept:
        for n in range(5, 40):
            kept.append(rows(n, n + 1))
    assert [reader.wait(60) for reader in readers] == [0] * 4
    assert Rows([path]) == rows(0, 40) and entries_of(path)[-1].end == path.stat().st_size
