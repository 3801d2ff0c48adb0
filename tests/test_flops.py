"""The arithmetic of a training step, counted from sizes, is what the compiler counts of the compiled step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import QUICK

from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.models.draft import draft_of, init_draft
from specexit_jax.models.target import Target, init_target
from specexit_jax.training.draft import DraftTrainingConfig, draft_losses
from specexit_jax.training.flops import draft_step_flops, seen_pairs
from specexit_jax.training.teacher import run_teacher

TARGET = TargetConfig("qwen3", 768, 128, 320, 3, 4, 2, 32, qk_norm=True, row_attention="plain")
DRAFT = DraftConfig(128, 128, 320, 4, 2, 32, vocab_size=768, draft_vocab_size=256, row_attention="plain")


def counted(target: TargetConfig, draft: DraftConfig, rows: int, tokens: int, steps: int) -> float:
    """XLA's count of operations for the losses and their gradient, elementwise ones included, without the optimizer."""
    config = DraftTrainingConfig(steps=steps)

    def gradients(params, target_params, batch):
        taught = run_teacher(Target(target), target_params, batch, jnp.arange(draft.draft_vocab_size))
        losses = functools.partial(draft_losses, teacher=taught, batch=batch, draft=draft_of(draft), config=config)
        return jax.grad(lambda params: jnp.sum(losses(params)[0]))(params)

    shape = functools.partial(jax.ShapeDtypeStruct, (rows, tokens))
    batch = {name: shape(jnp.int32) for name in ("tokens", "segment_ids", "positions")} | {
        "loss_mask": shape(jnp.bool_)
    }
    for name in ("labels", "label_mask"):
        batch[name] = jax.ShapeDtypeStruct((rows, tokens, 3), jnp.float32)
    params = [
        jax.eval_shape(functools.partial(init, config), jax.random.key(0))
        for init, config in ((init_draft, draft), (init_target, target))
    ]
    return jax.jit(gradients).lower(*params, batch).compile(compiler_options=QUICK).cost_analysis()["flops"]


@pytest.mark.parametrize(
    ("rows", "steps", "changes"), [(2, 3, {}), (1, 1, {"vocab_size": 4096}), (2, 2, {"num_layers": 8})]
)
def test_the_compiler_counts_a_tenth_more_at_most(rows, steps, changes):
    """Norms, softmax, the masked half of attention's square, and the teacher's logits on the draft vocabulary."""
    target = dataclasses.replace(TARGET, **changes)
    draft = dataclasses.replace(DRAFT, vocab_size=target.vocab_size)
    found = counted(target, draft, rows, 64, steps) / draft_step_flops(target, draft, rows, 64, steps)
    assert 1 < found < 1.1


def test_pairs_are_those_of_the_mask():
    back = np.arange(50)[:, None] - np.arange(50)[None, :]
    for window in (0, 1, 7, 49, 50, 90):
        assert seen_pairs(50, window) == ((back >= 0) & (back < (window or 50))).sum()


def test_long_rows_cost_more_a_token_and_a_window_takes_the_drafts_share_back():
    per_token = [draft_step_flops(TARGET, DRAFT, 1, tokens, 3) / tokens for tokens in (1024, 32768)]
    windowed = draft_step_flops(TARGET, dataclasses.replace(DRAFT, sliding_window=512), 1, 32768, 3) / 32768
    assert per_token[0] < windowed < per_token[1]
    heads = DRAFT.num_heads * DRAFT.head_dim
    saved = 4 * 3 * 3 * heads * (seen_pairs(32768) - seen_pairs(32768, 512)) / 32768
    np.testing.assert_allclose(per_token[1] - windowed, saved, rtol=1e-9)
