"""Caches are updated in place, according to the buffers of the compiled programs."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
from decoding_case import DRAFT, SAMPLED, boundary_table, tiny_params, tiny_spec

from specexit_jax.decoding.loop import segments
from specexit_jax.decoding.loop.speculative import make_loop
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.exits.policy import unreachable

LIVE = 2048


@pytest.mark.parametrize(
    ("batch", "tree", "signals"),
    [
        (1, None, "draft"),
        (3, TreeShape(3, 2, 6), "fc"),
        pytest.param(1, None, "fc", marks=pytest.mark.slow),
        pytest.param(3, None, "fc", marks=pytest.mark.slow),
        pytest.param(1, TreeShape(3, 2, 6), "draft", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_segment_copies_no_cache(batch, tree, signals):
    draft = dataclasses.replace(DRAFT, signals=signals)
    spec = tiny_spec(3, sampling=SAMPLED, buffer_length=4000, tree=tree, draft=draft)
    loop = make_loop(spec, tiny_params(draft=draft), unreachable(), boundary_table())
    state = segments.open_slots(loop, batch, LIVE)
    compiled = segments.segment.lower(loop, LIVE, state, jnp.int32(9), jnp.int32(batch)).compile()
    caches = jax.tree.leaves((state.target_cache.k, state.target_cache.v, state.draft_cache.k, state.draft_cache.v))
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= sum(leaf.nbytes for leaf in caches)
    # The live prefix of the draft's layer, which its own steps read as slices, and the scores of one layer; nothing else.
    assert memory.temp_size_in_bytes < 5 * state.target_cache.k[0].nbytes < sum(leaf.nbytes for leaf in caches) / 1.5
    shapes = {",".join(map(str, leaf.shape)) for leaf in caches}
    copied = re.findall(r"= f32\[([\d,]+)\]\S* (?:copy|concatenate|pad)\(", compiled.as_text())
    assert not shapes & set(copied)


def test_a_request_enters_its_slot_in_place():
    spec = tiny_spec(3, buffer_length=4000)
    loop = make_loop(spec, tiny_params(), unreachable(), boundary_table())
    state = segments.open_slots(loop, 4, LIVE)
    memory = segments.put_row.lower(state, segments.fresh_row(loop, 256), jnp.int32(2)).compile().memory_analysis()
    caches = jax.tree.leaves((state.target_cache.k, state.target_cache.v))
    assert memory.alias_size_in_bytes >= sum(leaf.nbytes for leaf in caches)
    assert memory.temp_size_in_bytes < 1000
