"""Checkpoints restore exactly, fall back past a damaged one, and refuse another model's."""

import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sharded_case import shard_tree

from specexit_jax.parallel.sharding import make_mesh
from specexit_jax.storage.checkpoint import Checkpoints
from specexit_jax.storage.checksum import checksum
from specexit_jax.training.optimizer import OptimizerConfig, make_optimizer
from specexit_jax.training.state import init_state


def make_state(seed=0, name="muon", width=16):
    keys = jax.random.split(jax.random.key(seed), 2)
    params = {
        "embed": {"embedding": jax.random.normal(keys[0], (32, width))},
        "layers_0": {"mlp": {"down": jax.random.normal(keys[1], (32, width))}, "mlp_norm": {"scale": jnp.ones(width)}},
    }
    return init_state(params, make_optimizer(OptimizerConfig(name=name)))


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
        assert x.dtype == y.dtype


def damage(folder, how):
    """Spoils the largest file of a checkpoint, where the values are."""
    file = max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    content = bytearray(file.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    elif how == "flip":
        content[len(content) // 2] ^= 0x10
    file.write_bytes(bytes(content))


def test_a_state_comes_back_bit_for_bit(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, make_state(1))
    with Checkpoints(tmp_path) as checkpoints:
        state, step, _ = checkpoints.restore_latest(make_state(2))
    assert step == 7
    assert_same(state, make_state(1))


def test_a_save_goes_on_while_the_state_is_donated_away(tmp_path):
    """In-place steps during a save do not change what is saved; notes are restored too."""
    advance = jax.jit(lambda state: jax.tree.map(lambda x: x + jnp.ones((), x.dtype), state), donate_argnums=0)
    state = {f"layer_{i}": jnp.full((512, 512), i, jnp.float32) for i in range(8)}
    with Checkpoints(tmp_path) as checkpoints:
        for step in range(1, 7):
            state = advance(state)
            if step in (2, 5):
                checkpoints.save(step, state, {"loss_average": 1 / 3})
        checkpoints.wait()
        restored = {step: checkpoints.restore(step, state) for step in (2, 5)}
    for step, (found, notes) in restored.items():
        assert notes == {"loss_average": 1 / 3}
        for i in range(8):
            assert (np.asarray(found[f"layer_{i}"]) == i + step).all()


def test_a_full_disk_ends_in_one_sentence_and_leaves_the_last_checkpoint(tmp_path):
    """No file may grow beyond 64 KiB: writing the values truly fails, inside TensorStore."""
    state = {"values": jax.random.normal(jax.random.key(0), (256, 1024))}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    sentence = r"no space left for checkpoint .*/2; the last good checkpoint is step 1: free"
    with pytest.raises(OSError, match=sentence), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        checkpoints.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
        try:
            checkpoints.save(2, state)
            checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with Checkpoints(tmp_path) as checkpoints:
        found, step, _ = checkpoints.restore_latest(jax.tree.map(jnp.zeros_like, state))
        assert step == 1
        assert_same(found, state)
        checkpoints.save(2, state)  # there is space again
        checkpoints.wait()
        assert checkpoints.steps() == [1, 2]


def test_the_checksum_knows_every_bit_and_place_and_no_mesh():
    state = make_state(1)
    leaves = {f"{i}": leaf for i, leaf in enumerate(jax.tree.leaves(state))}
    wanted = checksum(leaves)
    sharded = jax.tree.leaves(shard_tree(state, make_mesh(data=2, fsdp=2, tensor=2)))
    assert checksum({f"{i}": leaf for i, leaf in enumerate(sharded)}) == wanted
    rng = np.random.default_rng(0)
    for name, leaf in leaves.items():
        flat = np.array(leaf).reshape(-1)
        bits = flat.view(np.uint8)
        bits[rng.integers(bits.size)] ^= np.uint8(1 << rng.integers(8))
        assert checksum(leaves | {name: jnp.asarray(flat.reshape(leaf.shape))}) != wanted
    table = leaves["0"]
    assert checksum(leaves | {"0": jnp.roll(table, 1, axis=0)}) != wanted
    assert checksum({("x" if name == "0" else name): leaf for name, leaf in leaves.items()}) != wanted
    assert checksum({"a": jnp.asarray([True, False])}) != checksum({"a": jnp.asarray([False, True])})


def test_the_checksum_sees_what_changes_places_however_alike():
    """Swapped values (x and -x, x and 2 x, near and far), rows, columns and leaves; the sign of a zero, a NaN's payload."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(6, 8)).astype(np.float32)
    wanted = checksum({"a": table, "b": table.T.copy()})
    for factor in (-1, 2, -0.5):
        for place in (1, 5, 8, 17, 47):
            pair = table.copy().reshape(-1)
            pair[place] = factor * pair[0]
            swapped = pair.copy()
            swapped[[0, place]] = pair[[place, 0]]
            found = [checksum({"a": flat.reshape(table.shape)}) for flat in (pair, swapped)]
            assert found[0] != found[1], (factor, place)
    signs = np.where(rng.random(table.shape) < 0.5, -1, 1).astype(np.float32)
    assert len({checksum({"a": order}) for order in (signs, signs[::-1].copy(), signs[:, ::-1].copy(), -signs)}) == 4
    assert checksum({"a": table.T.copy(), "b": table}) != wanted
    assert checksum({"b": table, "a": table.T.copy()}) == checksum({"a": table.T.copy(), "b": table})
    assert checksum({"a": table[[1, 0, 2, 3, 4, 5]], "b": table.T.copy()}) != wanted
    assert checksum({"a": np.float32([0.0, 1])}) != checksum({"a": np.float32([-0.0, 1])})
    nans = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    assert checksum({"a": nans[:1]}) != checksum({"a": nans[1:]})


def test_a_checkpoint_of_before_is_restored_with_a_note(tmp_path, monkeypatch, capsys):
    state = make_state(1)
    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr("specexit_jax.storage.checkpoint._CHECKSUM", "checksum")
        checkpoints.save(1, state)
        checkpoints.wait()
        monkeypatch.undo()
        found, _ = checkpoints.restore(1, jax.tree.map(jnp.zeros_like, state))
        assert_same(found, state)
    assert "its values are not checked" in capsys.readouterr().err


def test_only_the_newest_are_kept_and_nothing_is_found_in_a_new_folder(tmp_path):
    with Checkpoints(tmp_path / "new", keep=2) as checkpoints:
        assert checkpoints.restore_latest(make_state()) is None
        for step in (1, 2, 3):
            checkpoints.save(step, make_state(step))
        assert 3 not in checkpoints.steps()  # under way
        checkpoints.wait()
        assert checkpoints.steps() == [2, 3]


@pytest.mark.parametrize("how", ["cut", "flip"])
def test_a_damaged_newest_checkpoint_is_named_and_passed_over(tmp_path, capsys, how):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1))
        checkpoints.save(2, make_state(2))
    damage(tmp_path / "2", how)
    with Checkpoints(tmp_path) as checkpoints:
        state, step, _ = checkpoints.restore_latest(make_state(9))
        assert checkpoints.steps() == [1]
        checkpoints.save(2, make_state(3))  # the step can be saved again
        checkpoints.wait()
        assert checkpoints.steps() == [1, 2]
    assert step == 1
    assert_same(state, make_state(1))
    assert f"{tmp_path / '2'} cannot be read" in capsys.readouterr().out


def test_when_all_are_damaged_the_run_does_not_start_again_by_itself(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1))
    damage(tmp_path / "1", "cut")
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match="no checkpoint in .* can be read"):
        checkpoints.restore_latest(make_state(1))


@pytest.mark.parametrize("other, problem", [({"width": 8}, "embedding is float32"), ({"name": "adamw"}, "it ")])
def test_another_models_checkpoint_is_refused_by_name(tmp_path, other, problem):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1))
        with pytest.raises(ValueError, match=f"another model or optimizer: .*{problem}"):
            checkpoints.restore_latest(make_state(1, **other))
        assert checkpoints.steps() == [1]


def test_a_sharded_state_is_restored_into_another_sharding(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, shard_tree(make_state(1), make_mesh(fsdp=4)))
        like = shard_tree(make_state(2), make_mesh(tensor=2))
        state, _, _ = checkpoints.restore_latest(like)
    assert_same(state, make_state(1))
    assert jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(lambda x: x.sharding, like)
