"""Attention in blocks has the values and the gradients of plain attention and of one explicit score matrix."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import QUICK

from specexit_jax.models import row_attention
from specexit_jax.models.blockwise import attend_blockwise, visible_pairs
from specexit_jax.models.row_attention import Sight, attend_rows, row_mask

ROWS, HEADS, GROUP, SIZE, OWN = 2, 2, 3, 4, 3


def case(tokens: int, seed: int = 0):
    """Queries, keys, values and three diagonal pairs of random rows, and packed segments that end in padding (0)."""
    rng = np.random.default_rng(seed)
    flat = (ROWS, HEADS, tokens, SIZE)
    draw = functools.partial(rng.normal, scale=1.5)
    q = draw(size=(ROWS, HEADS, GROUP, tokens, SIZE)).astype(np.float32)
    k, v = (draw(size=flat).astype(np.float32) for _ in range(2))
    own = tuple(tuple(draw(size=flat).astype(np.float32) for _ in range(2)) for _ in range(OWN))
    ends = np.sort(rng.integers(1, tokens, (ROWS, 2)), axis=1)
    index = np.arange(tokens)
    segments = 1 + (index >= ends[:, :1]) - 2 * (index >= ends[:, 1:])
    return jax.tree.map(jnp.asarray, ((q, k, v, own), segments.astype(np.int32)))


def dense(q, k, v, own, segments, window):
    """Written from docs/method.md §9: causal scores of step 0 beside a diagonal block for every later step."""
    tokens = q.shape[3]
    index = jnp.arange(tokens)
    back = index[:, None] - index[None, :]
    seen = (back >= 0) & (back < (window or tokens))
    seen = seen[None] & (segments[:, :, None] == segments[:, None, :])
    diagonal = jnp.broadcast_to(back == 0, seen.shape)
    keys = jnp.concatenate([k, *(pair[0] for pair in own)], axis=2)
    values = jnp.concatenate([v, *(pair[1] for pair in own)], axis=2)
    allowed = jnp.concatenate([seen] + [diagonal] * len(own), axis=2)[:, None, None]
    scores = jnp.einsum("bkgth,bksh->bkgts", q, keys) / np.float32(np.sqrt(SIZE))
    weights = jax.nn.softmax(jnp.where(allowed, scores, jnp.float32(-jnp.inf)), axis=-1)
    return jnp.einsum("bkgts,bksh->bkgth", weights, values)


def plain(q, k, v, own, segments, window):
    return attend_rows(q, k, v, row_mask("plain", segments, q.shape[3], window), own)


def fused(q, k, v, own, segments, window, block):
    return attend_blockwise(q, k, v, segments, window, own, block)


def value_and_gradients(function, arrays, segments):
    """The output, and the gradients of a random functional of it for queries, keys, values and diagonal pairs."""
    weights = jax.random.normal(jax.random.key(1), arrays[0].shape)

    def value(arrays):
        out = function(*arrays, segments)
        return jnp.sum(out * weights), out

    return jax.jit(jax.grad(value, has_aux=True), compiler_options=QUICK)(arrays)


@pytest.mark.parametrize(
    ("tokens", "block", "window", "steps"),
    [(64, 16, 0, 3), (61, 16, 0, 1), (61, 16, 10, 3), (64, 16, 33, 2), (37, 64, 5, 3), (61, 16, 1, 1), (192, 32, 0, 3)],
)
def test_values_and_gradients_equal_plain_attention_and_the_dense_form(tokens, block, window, steps):
    (q, k, v, own), segments = case(tokens, seed=tokens + window)
    arrays = (q, k, v, own[:steps])
    wanted = value_and_gradients(functools.partial(dense, window=window), arrays, segments)
    for path in (functools.partial(plain, window=window), functools.partial(fused, window=window, block=block)):
        found = value_and_gradients(path, arrays, segments)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            assert np.abs(b).max() > 0
            np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max(), rtol=1e-5)


@pytest.mark.parametrize("path", ["plain", "fused"])
def test_nothing_crosses_documents_or_leaves_the_window(path):
    """For one query's output, the gradient of every key and value that it does not see is exactly zero."""
    tokens, window, query = 61, 9, 40
    (q, k, v, own), segments = case(tokens)
    segments = jnp.asarray([[1] * 36 + [2] * 20 + [0] * 5] * ROWS, jnp.int32)
    run = functools.partial(fused, block=16) if path == "fused" else plain

    def value(k, v, own, window):
        return jnp.sum(run(q, k, v, own, segments, window)[:, :, :, query])

    for width, first in ((0, 36), (window, 36), (3, 38)):
        gradients = jax.jit(jax.grad(value, argnums=(0, 1)), static_argnums=3)(k, v, own, width)
        for gradient in gradients:
            moved = np.abs(gradient).max(axis=(0, 1, 3))
            assert (moved[first : query + 1] > 0).all()
            assert (np.delete(moved, np.arange(first, query + 1)) == 0).all()
    for gradient in jax.tree.leaves(jax.jit(jax.grad(value, argnums=2), static_argnums=3)(k, v, own, window)):
        moved = np.abs(gradient).max(axis=(0, 1, 3))
        assert moved[query] > 0 and (np.delete(moved, query) == 0).all()


def test_blocks_that_nobody_sees_are_not_visited():
    assert len(visible_pairs(8, 16, 0)) == 36
    for window in (0, 1, 2, 16, 17, 18, 40):
        index = np.arange(128)
        back = index[:, None] - index[None, :]
        seen = (back >= 0) & (back < (window or 128))
        wanted = {(i, j) for i in range(8) for j in range(8) if seen[16 * i : 16 * i + 16, 16 * j : 16 * j + 16].any()}
        assert set(map(tuple, visible_pairs(8, 16, window).tolist())) == wanted


def test_bfloat16_is_summed_in_float32():
    """Means of up to 512 values, block by block: the error is the rounding of the result, not that of 128 sums."""
    (_, k, v, _), _ = case(512)
    k, v = (jnp.abs(x).astype(jnp.bfloat16) for x in (k, v))
    q = jnp.zeros((ROWS, HEADS, 1, 512, SIZE), jnp.bfloat16)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(v):
        out, pull = jax.vjp(lambda v: attend_blockwise(q, k, v, None, block=4), v)
        return out[:, :, 0], pull(jnp.ones_like(out))[0]

    exact = np.asarray(v, np.float64)
    counts = np.arange(1, 513)
    mean = exact.cumsum(axis=2) / counts[:, None]
    pulled = np.broadcast_to((1 / counts)[::-1].cumsum()[::-1][:, None], exact.shape)
    for found, wanted in zip(run(v), (mean, pulled), strict=True):
        np.testing.assert_allclose(np.asarray(found, np.float64), wanted, rtol=2**-7)


def test_a_row_of_one_document_needs_no_segments():
    (q, k, v, own), _ = case(61)
    whole = fused(q, k, v, own, jnp.ones((ROWS, 61), jnp.int32), 0, 16)
    np.testing.assert_allclose(fused(q, k, v, own, None, 0, 16), whole, atol=1e-6)


def test_long_rows_choose_the_blocks_by_themselves(monkeypatch):
    monkeypatch.setattr(row_attention, "FUSED_FROM", 32)
    chosen = [
        isinstance(row_mask(path, None, tokens), Sight) for path in ("auto", "plain", "fused") for tokens in (32, 33)
    ]
    assert chosen == [False, True, False, False, True, True]
