"""Caches are updated in place: what the compiler says of the compiled pieces of the loop."""

import re

import jax
import jax.numpy as jnp
import pytest
from decoding_case import SAMPLED, boundary_table, tiny_params, tiny_spec

from specexit_jax.decoding import segments
from specexit_jax.decoding.speculative import make_loop
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.exits.policy import unreachable

LIVE = 2048


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("tree", [None, TreeShape(3, 2, 6)], ids=["chain", "tree"])
def test_a_segment_copies_no_cache(batch, tree):
    spec = tiny_spec(3, sampling=SAMPLED, buffer_length=4000, tree=tree)
    loop = make_loop(spec, tiny_params(), unreachable(), boundary_table())
    state = segments.open_slots(loop, batch, LIVE)
    compiled = segments.segment.lower(loop, LIVE, state, jnp.int32(9), jnp.int32(batch)).compile()
    caches = jax.tree.leaves((state.target_cache.k, state.target_cache.v, state.draft_cache.k, state.draft_cache.v))
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= sum(leaf.nbytes for leaf in caches)
    # All layers together need less room than one array of one layer: none of them is copied.
    assert memory.temp_size_in_bytes < 1.5 * state.target_cache.k[0].nbytes
    shapes = {",".join(map(str, leaf.shape)) for leaf in caches}
    copied = re.findall(r"= f32\[([\d,]+)\]\S* (?:copy|concatenate|pad)\(", compiled.as_text())
    assert not shapes & set(copied)


def test_a_request_enters_its_slot_in_place():
    spec = tiny_spec(3, buffer_length=4000)
    loop = make_loop(spec, tiny_params(), unreachable(), boundary_table())
    state = segments.open_slots(loop, 4, LIVE)
    one, zeros = jnp.ones((1,), jnp.int32), jnp.zeros((1,), jnp.int32)
    arguments = (jnp.int32(2), jnp.zeros((1, 32), jnp.int32), zeros, one, state.keys[:1], one > 0, one)
    memory = segments.admit.lower(loop, 256, state, *arguments).compile().memory_analysis()
    caches = jax.tree.leaves((state.target_cache.k, state.target_cache.v))
    assert memory.alias_size_in_bytes >= sum(leaf.nbytes for leaf in caches)
    assert memory.temp_size_in_bytes < sum(leaf.nbytes for leaf in caches) / 4
