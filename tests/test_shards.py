"""Work shared by processes: which part each does, the union of their files, settings that must not change."""

import json

import pytest

from specexit_jax.storage.jsonl import append_jsonl
from specexit_jax.storage.shards import (
    WHOLE,
    Shard,
    held,
    own_rows,
    read_shards,
    require_settings,
    shard_files,
    write_report,
)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_every_piece_is_one_processs(count):
    pieces = list(range(20))
    shares = [Shard(index, count).own(pieces) for index in range(count)]
    assert sorted(piece for share in shares for piece in share) == pieces
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_file_names(tmp_path):
    assert WHOLE.path(tmp_path, "traces").name == "traces.jsonl"
    assert Shard(2, 8).path(tmp_path, "traces").name == "traces-00002-of-00008.jsonl"
    for name in ("traces.jsonl", "traces-00000-of-00002.jsonl", "traces-old.jsonl", "think.jsonl", "traces.jsonl.tmp"):
        (tmp_path / name).write_text("")
    found = [path.name for path in shard_files(tmp_path, "traces")]
    assert found == ["traces-00000-of-00002.jsonl", "traces.jsonl"]


@pytest.mark.parametrize(("index", "count"), [(2, 2), (-1, 2), (0, 0)])
def test_a_shard_that_is_none_is_refused(index, count):
    with pytest.raises(ValueError, match="A shard is one of"):
        Shard(index, count)


def test_what_is_done_is_what_any_process_did(tmp_path):
    append_jsonl(tmp_path / "traces.jsonl", [{"id": "a"}])
    append_jsonl(tmp_path / "traces-00001-of-00002.jsonl", [{"id": "b"}, {"id": "a"}])
    with (tmp_path / "traces-00000-of-00002.jsonl").open("w") as file:
        file.write('{"id": "c"}\n{"id": "torn')
    assert sorted(row["id"] for row in read_shards(tmp_path, "traces")) == ["a", "b", "c"]
    assert held(tmp_path, "labels") == []
    with pytest.raises(FileNotFoundError, match=r"labels.jsonl does not exist: run the stage"):
        read_shards(tmp_path, "labels")
    with (tmp_path / "traces.jsonl").open("a") as file:
        file.write('{"id": "torn"\n')
    with pytest.raises(ValueError, match=r"traces.jsonl: line 2 is not valid JSON"):
        read_shards(tmp_path, "traces")


def test_other_settings_are_refused_by_name(tmp_path):
    settings = {"seed": 0, "kinds": ("paragraph",), "sampling": {"temperature": 0.8}}
    write_report(Shard(1, 2).path(tmp_path, "rollout", ".json"), settings, {"tokens": 5})
    require_settings(tmp_path, "rollout", settings | {"seed": 1})  # without rows beside it, it has no effect
    append_jsonl(Shard(0, 2).path(tmp_path, "traces"), [{"id": "a"}])
    with Shard(1, 2).path(tmp_path, "traces").open("w") as file:
        file.write('{"id": "torn')
    require_settings(tmp_path, "rollout", settings | {"seed": 1})  # nor with half a row, or another's
    append_jsonl(Shard(1, 2).path(tmp_path, "traces"), [{"id": "b"}])
    require_settings(tmp_path, "rollout", settings | {"target": "later"})
    for changed, said in [({"seed": 1}, "seed 0, this run has 1"), ({"kinds": ["marker"]}, r"kinds \['paragraph'\]")]:
        with pytest.raises(ValueError, match=rf"rollout-00001-of-00002.json was made with {said}"):
            require_settings(tmp_path, "rollout", settings | changed)
    with pytest.raises(
        ValueError, match=r"made with noise 'crc32', this run has 'blake2b-64': give what it was made with"
    ):
        require_settings(tmp_path, "rollout", settings | {"noise": "blake2b-64"})
    assert json.loads((tmp_path / "rollout-00001-of-00002.json").read_text())["measured"] == {"tokens": 5}
    (tmp_path / "rollout.json").write_text("[]")
    require_settings(tmp_path, "rollout", settings)
    append_jsonl(tmp_path / "traces.jsonl", [{"id": "c"}])
    with pytest.raises(ValueError, match=r"rollout.json is not a report of this stage"):
        require_settings(tmp_path, "rollout", settings)


def test_settings_come_with_the_first_row(tmp_path):
    with own_rows(tmp_path, "traces", "rollout", {"seed": 0}):
        pass
    assert not (tmp_path / "rollout.json").exists()
    with pytest.raises(ValueError, match="the model said no"), own_rows(tmp_path, "traces", "rollout", {"seed": 0}):
        raise ValueError("the model said no")
    (tmp_path / "rollout.json").write_text('{"settings": {"seed": 5}, "measured": {}}')  # as earlier versions left it
    with own_rows(tmp_path, "traces", "rollout", {"seed": 1}) as rows:
        rows.append([{"id": "a"}])
        assert json.loads((tmp_path / "rollout.json").read_text()) == {"settings": {"seed": 1}, "measured": {}}
        rows.report({"tokens": 3})
    with own_rows(tmp_path, "traces", "rollout", {"seed": 1}) as rows:
        assert json.loads((tmp_path / "rollout.json").read_text())["measured"] == {"tokens": 3}
        rows.append([{"id": "b"}])
    assert json.loads((tmp_path / "rollout.json").read_text())["measured"] == {"tokens": 3}
    with pytest.raises(ValueError, match="made with seed 1"), own_rows(tmp_path, "traces", "rollout", {"seed": 2}):
        pass
    assert [row["id"] for row in held(tmp_path, "traces")] == ["a", "b"]
