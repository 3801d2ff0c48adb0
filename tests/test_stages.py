"""What stages read off a config and their flags, without a model."""

import dataclasses
from types import SimpleNamespace

import jax
import pytest
from programs_case import unboxed
from tiny_folders import write_tiny

from configs.embedded import get_config
from launch import rollout, stages
from specexit_jax.data.sources import Table, World
from specexit_jax.storage.identity import file_digest, same
from specexit_jax.storage.shards import Shard


@pytest.fixture
def flag(monkeypatch):
    """Sets --shard."""
    return lambda text: monkeypatch.setattr(stages.flags, "FLAGS", SimpleNamespace(shard=text))


def test_the_shard_is_the_flags_or_the_launchers(flag, monkeypatch):
    flag("2/8")
    assert stages.shard() == Shard(2, 8)
    flag(None)
    assert stages.shard() == Shard(0, 1)
    monkeypatch.setattr(jax, "process_index", lambda: 3)
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    assert stages.shard() == Shard(3, 4)
    flag("0/2")
    with pytest.raises(ValueError, match="share the work by themselves: leave --shard out"):
        stages.shard()


def test_rollouts_speculate_with_the_draft_that_training_left(tmp_path, monkeypatch):
    """So that traces of test have its acceptance; else with the config's, where that is a folder."""
    config, opened = get_config(), []

    def stop(_, draft):
        opened.append(draft)
        raise InterruptedError

    monkeypatch.setattr(stages.flags, "FLAGS", SimpleNamespace(workdir=str(tmp_path), shard=None))
    monkeypatch.setattr(rollout, "check", lambda: (config, {}, None))
    monkeypatch.setattr(rollout.loading, "open_session", stop)
    wanted = [config.draft, None, str(tmp_path / "draft_model")]
    for draft, made in ((config.draft, False), ("", False), ("", True)):
        config.draft = draft
        if made:
            (tmp_path / "draft_model").mkdir()
        with pytest.raises(InterruptedError):
            rollout.main()
    assert opened == wanted


@pytest.mark.parametrize(
    ("text", "message"), [("1", "--shard is i/n"), ("a/b", "not 'a/b'"), ("2/2", "one of 0/2 to 1/2")]
)
def test_a_wrong_shard_gets_one_sentence(flag, text, message):
    flag(text)
    with pytest.raises(ValueError, match=message):
        stages.shard()


def test_every_config_can_name_a_table():
    config = get_config()
    assert stages.source_of(config) == World(tuple(config.tasks))
    assert stages.source_of(config, ["gcd"]) == World(("gcd",))
    with pytest.raises(ValueError, match="unknown task 'sums'"):
        stages.source_of(config, ["sums"])
    assert {field.name for field in dataclasses.fields(Table)} == set(config.source)
    config.source.update({"name": "openai/gsm8k", "config": "main", "answer_after": "####"})
    assert stages.source_of(config) == Table("openai/gsm8k", "main", answer_after="####")


def test_benchmarks_are_called_by_their_names():
    config = get_config()
    config.source.update({"name": "gsm8k, aime", "folder": "somewhere"})
    source = stages.source_of(config)
    assert [table.task for table in source.tables] == ["gsm8k", "aime", "aime"]
    assert {table.folder for table in source.tables} == {"somewhere"}
    config.source.name = ""
    with pytest.raises(ValueError, match="has folder but no name"):
        stages.source_of(config)


def test_programs_need_a_sandbox_before_any_work(monkeypatch):
    config = get_config()
    config.source.name = "gsm8k,humaneval_plus"
    ran = []
    unboxed(monkeypatch, lambda text: ran.append(text))
    assert stages.source_of(config).tables[1].checker == "code" and len(ran) == 1

    def refuse(text):
        raise RuntimeError("no namespaces here")

    unboxed(monkeypatch, refuse)
    with pytest.raises(ValueError, match="in a sandbox: no namespaces here"):
        stages.source_of(config)
    config.source.name = "gsm8k"
    stages.source_of(config)


def test_confidence_over_keys_needs_keys():
    config = get_config()
    assert stages.forcing_of(config).keys == 1
    config.annotate.confidence = "keys"
    with pytest.raises(ValueError, match="give --config.annotate.request_keys=4"):
        stages.forcing_of(config)
    config.annotate.request_keys = 4
    assert stages.forcing_of(config).keys == 4
    config.annotate.branches = 0
    with pytest.raises(ValueError, match="branches of at least 1, not 0"):
        stages.forcing_of(config)


def test_a_target_is_known_by_its_weights(tmp_path):
    """Wherever its folder lies, and by its former name in workdirs of earlier versions."""
    names = []
    for place, seed in [("one", 0), ("two", 0), ("three", 1)]:
        write_tiny(tmp_path / place, seed)
        config = get_config()
        config.target = str(tmp_path / place / "target")
        names.append(stages.target_name(config))
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("target values:")
    former = f"target {file_digest(tmp_path / 'one' / 'target' / 'model.safetensors')}"
    assert [same(name, former) for name in names] == [True, True, False]
