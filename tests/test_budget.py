"""The memory of rows, and the levels that a device's memory allows."""

import types

import jax
import numpy as np
import pytest
from decoding_case import DRAFT, TARGET, tiny_spec
from test_slots import loop_of

from specexit_jax.decoding.loop import segments
from specexit_jax.engine import budget
from specexit_jax.engine.budget import budget_for, free_room, row_of
from specexit_jax.engine.levels import Level
from specexit_jax.engine.placement import Auto
from specexit_jax.engine.slots import CHUNK
from specexit_jax.engine.working import decode_working
from specexit_jax.parallel.host import free_memory
from specexit_jax.parallel.sharding import make_mesh

SPEC = tiny_spec(3, buffer_length=80, live_prefixes=(16, 32))


@pytest.mark.parametrize("live", SPEC.prefixes)
def test_a_row_is_what_the_state_of_one_row_holds(live):
    loop, row = loop_of(SPEC), row_of(loop_of(SPEC), live)
    three = jax.eval_shape(lambda: segments.open_slots(loop, 3, live))
    assert 3 * row.whole == sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(three))
    capacities = SPEC.capacities_for(live)
    target, draft = 2 * TARGET.num_layers * TARGET.head_dim * 4, 2 * DRAFT.head_dim * 4  # of one head, float32
    assert row.caches == capacities[0] * target + capacities[1] * draft
    assert row.array == max(capacities[0] * TARGET.head_dim, capacities[1] * DRAFT.head_dim) * 4
    assert row.held(6, 2) == 3 * (row.caches + row.array) + 6 * row.rest + row.whole


def test_levels_of_a_mesh_are_multiples_of_the_devices_that_share_rows():
    loop = loop_of(SPEC)
    room = row_of(loop, SPEC.capacity).held(2)
    single = budget_for(loop, None, Auto(16, room), 1000).levels
    assert single == (Level(12, 16), Level(6, 32), Level(2, SPEC.capacity))
    four = budget_for(loop, make_mesh(2, 2, 2), Auto(50, room), 1000).levels
    assert all(level.rows % 4 == 0 for level in four)
    assert all(level.rows >= 2 * one.rows for level, one in zip(four, single, strict=True))
    assert budget_for(loop, None, Auto(16, room), 3).levels == (Level(4, 32), Level(2, SPEC.capacity))
    assert budget_for(loop, None, Auto(16, 2**40), 1000).levels == (Level(16, SPEC.capacity),)


def test_a_row_that_does_not_fit_alone_is_refused():
    loop = loop_of(SPEC)
    least = row_of(loop, SPEC.capacity).held(1)
    assert budget_for(loop, None, Auto(16, least), 9).levels[-1].rows == 1
    with pytest.raises(
        ValueError, match=r"^Rows of 80 tokens take .* GiB of a device, but .*: lower max_new_tokens, raise cache"
    ):
        budget_for(loop, None, Auto(16, least - 1), 9)


def test_the_room_is_what_is_free_less_what_the_loop_works_with(monkeypatch):
    loop = loop_of(SPEC)
    stats = {"bytes_limit": 10**9, "bytes_in_use": 2 * 10**8}
    device = types.SimpleNamespace(memory_stats=lambda: stats)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    working = decode_working(TARGET, 8, 3, CHUNK)
    assert free_room(loop, None, 8) == int(budget.SHARE * 10**9) - 2 * 10**8 - working
    other = types.SimpleNamespace(memory_stats=lambda: stats | {"bytes_in_use": 5 * 10**8})
    mesh = types.SimpleNamespace(local_devices=np.array([device, other]), shape={"tensor": 2})
    assert free_room(loop, mesh, 8) == int(budget.SHARE * 10**9) - 5 * 10**8 - decode_working(TARGET, 8, 3, CHUNK, 2)
    monkeypatch.setattr(budget, "free_memory", lambda: 10**9)
    stats.clear()
    assert free_room(loop, None, 8) == int(budget.OF_HOST * 10**9) - working
    assert budget_for(loop, None, Auto(), 9).parked == int(budget.OF_HOST * 10**9)
    assert budget_for(loop, None, Auto(parked_bytes=7), 9).parked == 7


def test_the_free_memory_of_a_host_is_shared_and_bounded_by_its_container(monkeypatch, tmp_path):
    told, limit, used = (tmp_path / name for name in ("meminfo", "max", "current"))
    for name, path in (("_MEMORY", told), ("_LIMIT", limit), ("_USED", used)):
        monkeypatch.setattr(f"specexit_jax.parallel.host.{name}", path)
    assert free_memory({}) > 2**28
    told.write_text("MemTotal:  9000 kB\nMemAvailable:   8000 kB\n")
    assert free_memory({}) == 8000 * 1024
    limit.write_text("max\n")
    assert free_memory({"JAX_COORDINATOR_ADDRESS": "127.0.0.1:99", "JAX_NUM_PROCESSES": "4"}) == 2000 * 1024
    assert free_memory({"SLURM_CPUS_PER_TASK": "16", "SLURM_NTASKS_PER_NODE": "8"}) == 1000 * 1024
    limit.write_text("5000000\n")
    used.write_text("1000000\n")
    assert free_memory({}) == 4_000_000
