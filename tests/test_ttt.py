"""Training-time test computes what decoding will compute, forward and backward, and mixes no documents."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import QUICK
from sharded_case import shard_tree

from specexit_jax.backend import on_mesh
from specexit_jax.data.batches import Batches, RowsInMemory
from specexit_jax.data.packing import pack
from specexit_jax.decoding.drafts import layer_calls
from specexit_jax.decoding.spec import DecodeParams, DecodeSpec, LoopContext
from specexit_jax.evaluation.held_out import HeldOut
from specexit_jax.models import row_attention
from specexit_jax.models.blockwise import attend_blockwise
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.models.draft import draft_of, init_draft, init_draft_cache
from specexit_jax.models.target import Target, init_target
from specexit_jax.parallel.sharding import make_mesh, shard_batch
from specexit_jax.training.draft import (
    DraftTrainingConfig,
    check_vocabulary,
    draft_losses,
    gradnorm_weights,
    init_draft_state,
    make_draft_step,
    shared_norm,
)
from specexit_jax.training.losses import masked_mean, signal_errors, signal_losses, soft_cross_entropy
from specexit_jax.training.optimizer import OptimizerConfig, make_optimizer
from specexit_jax.training.teacher import OUTSIDE, run_teacher
from specexit_jax.training.ttt import run_steps, shift_left

V, W, T, STEPS = 10, 6, 16, 3
TARGET_CONFIG = TargetConfig("llama", V, 16, 16, 2, 2, 1, 8, capture=(0, 1, 1))
TARGET = Target(TARGET_CONFIG)
D2T = np.sort(np.random.default_rng(0).permutation(V)[:W])
LENGTHS = (7, 9, 12)  # two documents fill the first row, one and padding the second


@functools.cache
def make_draft(signals="fc", **changes):
    config = DraftConfig(16, 16, 16, 2, 1, 8, V, W, signals=signals, **changes)
    with jax.ensure_compile_time_eval():  # cached, also if the first call is made while tracing
        return draft_of(config), jax.jit(functools.partial(init_draft, config))(jax.random.key(5))


@functools.cache
def target_params():
    with jax.ensure_compile_time_eval():
        return jax.jit(functools.partial(init_target, TARGET_CONFIG))(jax.random.key(1))


@functools.cache
def example(lengths=LENGTHS):
    """Packed documents, loss from each one's third token on, labels everywhere; by default three in two rows."""
    rng = np.random.default_rng(3)
    documents = [(rng.integers(0, V, n), np.arange(n) >= 2) for n in lengths]
    labels = [np.stack([rng.random(n), rng.random(n), 50 * rng.random(n)], -1).astype(np.float32) for n in lengths]
    masks = [(rng.random((n, 3)) < 0.7).astype(np.float32) for n in lengths]
    rows = pack(documents, T, extra={"labels": labels, "label_mask": masks})
    return jax.tree.map(jnp.asarray, rows)


@functools.cache
def teacher(temperature=1.0, lengths=LENGTHS):
    return jax.jit(lambda params, batch: run_teacher(TARGET, params, batch, jnp.asarray(D2T), temperature))(
        target_params(), example(lengths)
    )


def documents_of(batch):
    """(row, start, length) of every document."""
    for row, segments in enumerate(np.asarray(batch["segment_ids"])):
        for segment in range(1, segments.max() + 1):
            where = np.flatnonzero(segments == segment)
            yield row, int(where[0]), len(where)


@functools.cache
def steps_of(signals="fc", **changes):
    draft, params = make_draft(signals, **changes)
    run = jax.jit(functools.partial(run_steps, draft, steps=STEPS), compiler_options=QUICK)
    return run(params, teacher().features, teacher().embedded, example())


def test_step_zero_is_the_plain_draft_pass():
    draft, params = make_draft()
    batch, taught = example(), teacher()

    def pass_once(module, features, embedded, positions, segment_ids):
        hidden, raw = module.fuse(features)
        return module(embedded, hidden, positions, segment_ids=segment_ids), raw

    run = jax.jit(functools.partial(draft.apply, {"params": params}, method=pass_once))
    plain, raw = run(taught.features, shift_left(taught.embedded, 1), batch["positions"], batch["segment_ids"])
    np.testing.assert_allclose(steps_of()[0][0], plain.hidden, atol=1e-6)
    np.testing.assert_allclose(steps_of()[1], raw, atol=1e-6)


@pytest.mark.parametrize("path", ["plain", "fused"])
@pytest.mark.parametrize("window", [0, 4])
def test_every_step_is_what_decoding_with_a_cache_computes(path, window):
    """Pairs 0 .. t of one document in the draft cache (the later ones rewound), then the loop's own steps of a chain; a window
    shorter than the documents too."""
    draft, params = make_draft(row_attention=path, sliding_window=window)
    spec = DecodeSpec(TARGET_CONFIG, 2 * T, (), (), draft.config, STEPS)
    loop = LoopContext(spec, DecodeParams(target_params(), params, jnp.asarray(D2T)), None, None)
    prefill = jax.jit(functools.partial(draft.apply, {"params": params}, method=_prefill))
    run = jax.jit(functools.partial(layer_calls.chain_step, loop, live=None), static_argnums=2)
    hiddens, _ = steps_of(row_attention=path, sliding_window=window)
    if window:
        assert np.abs(hiddens[0] - steps_of()[0][0]).max() > 1e-2  # otherwise the window would hide nothing
    compared, tokens = 0, jnp.pad(example()["tokens"], ((0, 0), (0, STEPS)))
    for row, start, length in documents_of(example()):
        features, embedded = (
            jnp.zeros((1, T, x.shape[-1])).at[0, :length].set(x[row, start : start + length])
            for x in (teacher().features, teacher().embedded)
        )
        filled = prefill(features, shift_left(embedded, 1), init_draft_cache(draft.config, 1, 2 * T))
        for t in range(0, length - STEPS, 2):
            hidden = filled.hidden[:, t : t + 1]
            cache, committed = filled.cache, jnp.full(1, t + 1, jnp.int32)
            for step in range(STEPS):
                np.testing.assert_allclose(hiddens[step][row, start + t], hidden[0, 0], atol=2e-5)
                compared += 1
                token = tokens[row, start + t + step + 2][None, None]
                out = run(cache, committed, step, hidden, token)
                hidden, cache = out.hidden, out.cache
    assert compared > 20


def _prefill(module, features, embedded, cache):
    return module(embedded, module.fuse(features)[0], jnp.arange(T, dtype=jnp.int32)[None], cache)


def dense_steps(draft, params, features, embedded, batch):
    """The same steps with one explicit score matrix over the keys of all steps, from docs/method.md §9 alone."""
    variables = {"params": params}
    hidden, raw = draft.apply(variables, features, method="fuse")
    segments, index = batch["segment_ids"], jnp.arange(T)
    back = index[:, None] - index[None, :]
    causal = (back >= 0) & (back < (draft.config.sliding_window or T))
    causal = causal[None] & (segments[:, :, None] == segments[:, None, :])
    diagonal = jnp.broadcast_to((index[:, None] == index[None, :])[None], causal.shape)
    keys, values, hiddens = [], [], []
    for step in range(STEPS):

        def one(module, embedded, hidden, step=step):
            residual, x = module.enter(embedded, hidden, batch["positions"] + jnp.int32(step))
            cos, sin = module.angles(batch["positions"] + jnp.int32(step))
            q, k, v = module.attention.project(x, cos, sin)
            keys.append(k)
            values.append(v)
            allowed = jnp.concatenate([causal] + [diagonal] * step, axis=-1)
            scores = jnp.einsum("bkgth,bksh->bkgts", q, jnp.concatenate(keys, axis=2)) / np.float32(np.sqrt(8))
            weights = jax.nn.softmax(jnp.where(allowed[:, None, None], scores, jnp.float32(-jnp.inf)), axis=-1)
            mixed = jnp.einsum("bkgts,bksh->bkgth", weights, jnp.concatenate(values, axis=2))
            return module.leave(residual, module.attention.merge(mixed))

        hidden = draft.apply(variables, shift_left(embedded, 1 + step), hidden, method=one)
        hiddens.append(hidden)
    return hiddens, raw


@functools.cache
def gradients(path, window=0):
    """Hiddens, and gradients for parameters, features and embeddings, of a random functional of all steps' logits."""
    draft, params = make_draft(sliding_window=window, row_attention="plain" if path == "dense" else path)
    batch = example()
    weights = jax.random.normal(jax.random.key(2), (STEPS, *batch["tokens"].shape, W))
    weights = weights * (batch["segment_ids"] > 0)[None, ..., None].astype(jnp.float32)

    def value(params, features, embedded):
        if path == "dense":
            hiddens, _ = dense_steps(draft, params, features, embedded, batch)
        else:
            hiddens, _ = run_steps(draft, params, features, embedded, batch, STEPS, remat=path == "fused")
        logits = jnp.stack([draft.apply({"params": params}, h, method="head") for h in hiddens])
        return jnp.sum(logits * weights), hiddens

    run = jax.jit(jax.grad(value, argnums=(0, 1, 2), has_aux=True), compiler_options=QUICK)
    return run(params, teacher().features, teacher().embedded)


@pytest.mark.parametrize("window", [0, 4])
@pytest.mark.parametrize("path", ["plain", "fused"])
def test_forward_and_gradients_equal_the_dense_form(path, window, monkeypatch):
    """The fused path in blocks of 5, its layers recomputed."""
    monkeypatch.setattr(row_attention, "attend_blockwise", functools.partial(attend_blockwise, block=5))
    (got, hiddens), (wanted, dense_hiddens) = gradients(path, window), gradients("dense", window)
    for a, b in zip(hiddens, dense_hiddens, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max() + 1e-7)


@pytest.mark.parametrize(("signals", "path"), [("fc", "plain"), ("draft", "plain"), ("draft", "fused")])
def test_no_gradient_of_the_loss_crosses_documents(signals, path, monkeypatch):
    """The loss of one document depends on its own features and embeddings; the gradient for other documents is exactly 0."""
    monkeypatch.setattr(row_attention, "attend_blockwise", functools.partial(attend_blockwise, block=5))
    draft, params = make_draft(signals, row_attention=path)
    config = DraftTrainingConfig(steps=STEPS)
    documents = list(documents_of(example()))

    @functools.partial(jax.jit, compiler_options=QUICK)
    def sensitivity(kept):
        batch = {**example(), "loss_mask": example()["loss_mask"] & kept}
        batch["label_mask"] = batch["label_mask"] * kept[..., None].astype(jnp.float32)

        def loss(features, embedded):
            taught = teacher().replace(features=features, embedded=embedded)
            return jnp.sum(draft_losses(params, taught, batch, draft=draft, config=config)[0])

        both = jax.grad(loss, argnums=(0, 1))(teacher().features, teacher().embedded)
        return jnp.stack([jnp.abs(g).sum(axis=-1) for g in both])

    for row, start, length in documents:
        kept = np.zeros((2, T), bool)
        kept[row, start : start + length] = True
        features, embedded = np.asarray(sensitivity(jnp.asarray(kept)))
        assert features[kept].any() and embedded[kept].any()
        assert (features[~kept] == 0).all() and (embedded[~kept] == 0).all()


def test_loss_and_acceptance_equal_a_slow_count():
    """Token by token on the host, from the target's full-vocabulary logits."""
    draft, params = make_draft()
    lengths_given = tuple(range(6, 17)) * 3
    batch, temperature, decay = example(lengths_given), 0.7, 0.6
    taught = teacher(temperature, lengths_given)
    config = DraftTrainingConfig(steps=STEPS, decay=decay, temperature=temperature)
    losses, metrics = jax.jit(functools.partial(draft_losses, draft=draft, config=config))(params, taught, batch)
    hiddens, _ = jax.jit(functools.partial(run_steps, draft, steps=STEPS))(
        params, taught.features, taught.embedded, batch
    )
    run = jax.jit(functools.partial(TARGET.apply, {"params": target_params()}))
    full = run(batch["tokens"], batch["positions"], segment_ids=batch["segment_ids"]).logits
    head = jax.jit(functools.partial(draft.apply, {"params": params}, method="head"))
    logits = [np.asarray(head(h), np.float64) for h in hiddens]
    loss, agree, lengths, outside = [[] for _ in range(STEPS)], [[] for _ in range(STEPS)], [], 0
    for row, start, length in documents_of(batch):
        ids = np.asarray(batch["tokens"])[row, start : start + length]
        z = np.asarray(full, np.float64)[row, start : start + length]
        for t in range(length):
            if t + 1 < 2:
                continue  # the root must be a token that the model wrote
            alive, expected = np.ones(2), 1.0
            chain = np.zeros(3)
            for step in range(STEPS):
                if t + 2 + step >= length:
                    break
                teach, own = z[t + 1 + step], logits[step][row, start + t]
                best = D2T[np.argmax(own)]
                agree[step].append(best == np.argmax(teach))
                if np.argmax(teach) in D2T:
                    p = np.exp(teach[D2T] - np.log(np.exp(teach[D2T]).sum()))
                    loss[step].append(-(p * (own - np.log(np.exp(own).sum()))).sum())
                else:
                    outside += 1
                alive = alive * [best == np.argmax(teach), best == ids[t + 2 + step]]
                expected *= np.exp(teach[best] / temperature) / np.exp(teach / temperature).sum()
                chain += [alive[0], expected, alive[1]]
            else:
                lengths.append(1 + chain)
    assert outside > 0 and int(metrics["chains"]) == len(lengths)
    assert (np.mean(lengths, axis=0) > 1.05).all()  # otherwise nothing would be compared
    weights = decay ** np.arange(STEPS)
    np.testing.assert_allclose(losses[0], weights @ [np.mean(x) for x in loss] / weights.sum(), rtol=1e-5)
    for step in range(STEPS):
        np.testing.assert_allclose(metrics[f"accept_{step}"], np.mean(agree[step]), rtol=1e-6)
    names = [f"{kind}_accept_length" for kind in ("simulated", "expected", "trace")]
    np.testing.assert_allclose([metrics[n] for n in names], np.mean(lengths, axis=0), rtol=1e-5)


@pytest.mark.parametrize("changes", [{"loss_chunk": 5}, {"loss_chunk": T - 1}, {"remat": True}])
def test_loss_in_chunks_and_recomputed_is_the_loss_at_once(changes, monkeypatch):
    """Metrics and gradients, the layers' fused attention against plain attention among them."""
    monkeypatch.setattr(row_attention, "attend_blockwise", functools.partial(attend_blockwise, block=5))

    def run(path, **changes):
        draft, params = make_draft("draft", row_attention=path)
        config = DraftTrainingConfig(steps=STEPS, temperature=0.7, **changes)
        losses = functools.partial(draft_losses, teacher=teacher(0.7), batch=example(), draft=draft, config=config)

        @functools.partial(jax.jit, compiler_options=QUICK)
        def pulled(params):
            value, pull, metrics = jax.vjp(losses, params, has_aux=True)
            return value, metrics, pull(jnp.arange(1, 5, dtype=jnp.float32))

        return pulled(params)

    wanted, found = run("plain"), run("fused", **changes)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max() + 1e-7, rtol=1e-5)


def test_on_a_mesh_fused_and_chunked_steps_are_those_of_one_device(monkeypatch):
    """Two devices with a row each, the weights split over both."""
    monkeypatch.setattr(row_attention, "attend_blockwise", functools.partial(attend_blockwise, block=5))
    draft, params = make_draft(row_attention="fused")
    config = DraftTrainingConfig(steps=2, loss_chunk=5)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(params, batch, target_params):
        taught = run_teacher(fused_target, target_params, batch, jnp.asarray(D2T), chunk=5)
        losses = functools.partial(draft_losses, teacher=taught, batch=batch, draft=draft, config=config)
        value, pull, _ = jax.vjp(losses, params, has_aux=True)
        return value, pull(jnp.ones(4, jnp.float32))

    fused_target = Target(dataclasses.replace(TARGET_CONFIG, row_attention="fused"))
    wanted = run(params, example(), target_params())
    mesh = make_mesh(1, 2, 1, devices=jax.devices()[:2])
    with on_mesh(mesh):
        found = run(shard_tree(params, mesh), shard_batch(example(), mesh), shard_tree(target_params(), mesh))
    assert len(found[1][0]["fc"].sharding.device_set) == 2
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max() + 1e-7, rtol=1e-5)


def test_the_teacher_in_chunks_is_the_teacher_at_once():
    chunked = run_teacher(TARGET, target_params(), example(), jnp.asarray(D2T), 1.0, chunk=5)
    for a, b in zip(jax.tree.leaves(chunked), jax.tree.leaves(teacher()), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    ids = np.asarray(example()["tokens"])
    inside = np.isin(ids, D2T)
    assert (np.asarray(teacher().tokens)[~inside] == OUTSIDE).all()
    np.testing.assert_array_equal(D2T[np.asarray(teacher().tokens)[inside]], ids[inside])


@pytest.mark.parametrize("signals", ["fc", "draft"])
def test_a_signal_of_a_token_has_seen_that_token_and_no_later_one(signals):
    draft, params = make_draft(signals)
    row, start, _ = max(documents_of(example()), key=lambda d: d[2])
    token = start + 5

    def signal(features, embedded):
        _, raw = run_steps(draft, params, features, embedded, example(), 1)
        return jnp.sum(raw[row, token])

    by_feature, by_embedding = jax.jit(jax.grad(signal, argnums=(0, 1)))(teacher().features, teacher().embedded)
    seen = [set(np.flatnonzero(np.abs(np.asarray(g[row])).sum(axis=-1)) - start) for g in (by_feature, by_embedding)]
    # 'draft': pairs (feature 0, token 1) .. (feature 4, token 5); 'fc': the feature of the token alone.
    assert seen == ([{5}, set()] if signals == "fc" else [set(range(5)), set(range(1, 6))])


def test_signal_losses_by_hand():
    raw = jnp.asarray([[[0.0, 2.0, 1.0], [9.0, 9.0, 9.0]]])
    labels = jnp.asarray([[[1.0, 0.25, 0.0], [0.0, 0.0, 1e4]]])
    mask = jnp.asarray([[[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]])
    entropy = -(0.25 * np.log(1 / (1 + np.exp(-2))) + 0.75 * np.log(1 - 1 / (1 + np.exp(-2))))
    np.testing.assert_allclose(signal_losses(raw, labels, mask), [np.log(2), entropy, 1.0], rtol=1e-6)
    errors = signal_errors(raw, labels, mask)
    wanted = [0.5, 1 / (1 + np.exp(-2)) - 0.25, 1.0]
    np.testing.assert_allclose(list(errors.values()), wanted, rtol=1e-6)
    np.testing.assert_array_equal(signal_losses(raw, labels, 0 * mask), np.zeros(3))


def test_a_masked_mean_ignores_what_is_masked_even_if_it_is_not_finite():
    values = jnp.asarray([1.0, jnp.nan, 3.0, jnp.inf])
    np.testing.assert_allclose(masked_mean(values, jnp.asarray([True, False, True, False])), 2.0)
    np.testing.assert_allclose(masked_mean(values, jnp.asarray([0.5, 0.0, 0.0, 0.0])), 1.0)
    logits = jnp.asarray([[0.0, 1.0]])
    np.testing.assert_allclose(
        soft_cross_entropy(logits, jnp.asarray([[-1e9, 0.0]])), [np.log(1 + np.exp(-1))], rtol=1e-6
    )


def test_gradnorm_weighs_by_gradients_on_the_shared_weights():
    config = DraftTrainingConfig(steps=1, weighting="gradnorm", gradnorm_decay=0.75, signal_weights=(1.0, 2.0, 0.5))
    draft, params = make_draft("draft")
    optimizer = make_optimizer(OptimizerConfig(total_steps=10, warmup_steps=1))
    pulls = jax.jit(jax.jacrev(lambda p: draft_losses(p, teacher(), example(), draft=draft, config=config)[0]))(params)
    apart = [jax.tree.map(lambda g, i=i: g[i], pulls) for i in range(4)]
    token, *signals = (shared_norm(g) for g in apart)
    wanted = [0.75 + 0.25 * float(token / norm) for norm in signals]
    state = init_draft_state(jax.tree.map(jnp.copy, params), optimizer, config, draft.config)
    step = make_draft_step(TARGET, target_params(), draft, D2T, optimizer, config)
    state, metrics = step(state, example())
    np.testing.assert_allclose(state.extra, wanted, rtol=1e-4)
    np.testing.assert_allclose(metrics["progress_weight"], 2 * wanted[1], rtol=1e-4)
    total = jax.tree.map(lambda *g: g[0] + wanted[0] * g[1] + 2 * wanted[1] * g[2] + 0.5 * wanted[2] * g[3], *apart)
    norm = np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(total)))
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-4)
    silent = [apart[0], *[jax.tree.map(jnp.zeros_like, apart[1])] * 3]
    np.testing.assert_array_equal(gradnorm_weights(silent, jnp.full(3, 7.0), 0.9), np.full(3, 7.0))


@pytest.mark.parametrize("signals", ["fc", "none"])
def test_gradnorm_is_refused_where_nothing_is_shared(signals):
    draft, params = make_draft(signals)
    config = DraftTrainingConfig(weighting="gradnorm")
    with pytest.raises(ValueError, match="'gradnorm' needs the signals at 'draft'"):
        init_draft_state(params, make_optimizer(OptimizerConfig()), config, draft.config)


def test_wrong_settings_and_vocabularies_are_refused():
    for wrong in ({"weighting": "none"}, {"steps": 0}):
        with pytest.raises(ValueError, match="weighting|step"):
            DraftTrainingConfig(**wrong)
    config = make_draft()[0].config
    for wrong in (D2T[:-1], np.zeros(W, int), D2T + V):
        with pytest.raises(ValueError, match="d2t"):
            check_vocabulary(wrong, config)


def test_training_raises_acceptance():
    """On documents that count upwards, a trained draft must nearly always agree with its (deterministic) teacher."""
    draft, params = make_draft()
    rng = np.random.default_rng(0)
    documents = [((np.arange(14) + rng.integers(V)) % V, np.ones(14, bool)) for _ in range(32)]
    labels = [np.tile(np.float32([1.0, 0.5, 20.0]), (14, 1)) for _ in documents]
    rows = pack(documents, T, extra={"labels": labels, "label_mask": [np.ones((14, 3), np.float32) for _ in documents]})
    batches = Batches(RowsInMemory(rows), batch_size=8)
    config = DraftTrainingConfig(steps=2)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2, total_steps=80, warmup_steps=5))
    state = init_draft_state(jax.tree.map(jnp.copy, params), optimizer, config, draft.config)
    step = make_draft_step(TARGET, target_params(), draft, D2T, optimizer, dataclasses.replace(config, remat=True))
    source = RowsInMemory(rows)
    look = HeldOut(TARGET_CONFIG, target_params(), draft.config, D2T, config, [source[i] for i in range(16)], 8)
    before = look(state.params)
    state, first = step(state, batches(0))
    for index in range(1, 80):
        state, metrics = step(state, batches(index))
    after = look(state.params)
    assert after["token_loss"] < before["token_loss"] and after["simulated_accept_length"] > 1.5
    assert after["simulated_accept_length"] > before["simulated_accept_length"] + 0.3
    for name in ("confidence_error", "progress_error", "log_remain_error"):
        assert float(metrics[name]) < 0.7 * float(first[name])
    assert np.isfinite(float(metrics["loss"]))
