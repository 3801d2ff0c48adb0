"""Features kept on disk train the same draft as features computed in the step."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_ttt import D2T, TARGET, TARGET_CONFIG, make_draft, target_params
from training_case import rows_of, write_split

from specexit_jax.parallel.sharding import make_mesh
from specexit_jax.training import feature_store
from specexit_jax.training.draft import DraftTrainingConfig, draft_losses
from specexit_jax.training.feature_store import FeatureStore
from specexit_jax.training.features import mean_square
from specexit_jax.training.teacher import STORED, run_teacher

TEMPERATURE = 0.7


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return rows_of(write_split(tmp_path_factory.mktemp("split"), 14))


def store_in(folder, source, monkeypatch, temperature=TEMPERATURE, name="a"):
    monkeypatch.setattr(feature_store, "SHARD_BYTES", 20_000)  # several shards
    return FeatureStore(folder, TARGET_CONFIG, source, 2, DraftTrainingConfig(temperature=temperature), name)


def test_losses_and_gradients_are_those_of_online_features(source, tmp_path, monkeypatch):
    store = store_in(tmp_path, source, monkeypatch)
    store.write(target_params())
    rows = store.rows()
    assert store.count > 1 and len(rows) == len(source)
    files = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert store.size <= files < store.size + 1000 * store.count  # the size that is told
    draft, params = make_draft()
    config = DraftTrainingConfig(steps=2, temperature=TEMPERATURE)

    @jax.jit
    def losses(params, batch):
        taught = run_teacher(TARGET, target_params(), batch, jnp.asarray(D2T), TEMPERATURE)
        run = functools.partial(draft_losses, teacher=taught, batch=batch, draft=draft, config=config)
        values, pull, _ = jax.vjp(run, params, has_aux=True)
        return values, pull(jnp.ones(4))[0]

    for number in (0, len(source) - 1):
        online, offline = ({k: v[None] for k, v in found[number].items()} for found in (source, rows))
        assert set(offline) - set(online) == set(STORED)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            losses(params, offline),
            losses(params, online),
        )
    stacked = [{name: np.stack([found[i][name] for i in range(4)]) for name in found[0]} for found in (source, rows)]
    squares = [mean_square(TARGET_CONFIG, target_params(), rows) for rows in stacked]
    np.testing.assert_allclose(squares[1], squares[0], rtol=1e-5)


def test_a_killed_writer_goes_on_with_the_missing_shards(source, tmp_path, monkeypatch):
    store = store_in(tmp_path, source, monkeypatch)
    store.write(target_params())
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    store.path(1).unlink()
    with pytest.raises(FileNotFoundError, match="1 of"):
        store.rows()
    before = store.path(0).stat().st_mtime_ns
    store.write(target_params(), make_mesh(2, 1, 4))  # whatever it is computed on
    assert store.path(0).stat().st_mtime_ns == before
    assert {path.name for path in tmp_path.iterdir()} == set(kept)
    again = {name: value for name, value in store.rows()[store.shard_rows].items() if name in STORED}
    (tmp_path / store.path(1).name).write_bytes(kept[store.path(1).name])
    for name, value in again.items():
        np.testing.assert_allclose(value, store.rows()[store.shard_rows][name], rtol=1e-4, atol=1e-5)


def test_other_rows_another_temperature_and_a_full_disk_are_refused(source, tmp_path, monkeypatch):
    store = store_in(tmp_path, source, monkeypatch)
    assert f"features of {len(source)} rows take 0.00 GiB" in store.summary()
    store.write(target_params())
    with pytest.raises(ValueError, match="another temperature"):
        store_in(tmp_path, source, monkeypatch, temperature=1.0).rows()
    with pytest.raises(ValueError, match="another target"):
        store_in(tmp_path, source, monkeypatch, name="b").summary()
    other = rows_of(write_split(tmp_path / "other", 14, seed=9))
    if len(other) == len(source):
        with pytest.raises(ValueError, match="another set of rows"):
            store_in(tmp_path, other, monkeypatch).rows()
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(feature_store.shutil, "disk_usage", lambda _: usage(10, 10, 0))
    assert "0.00 of them to be written" in store.summary()
    with pytest.raises(OSError, match="make room, or train with features 'online'"):
        store_in(tmp_path / "new", source, monkeypatch).summary()
