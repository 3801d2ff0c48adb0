"""The draft's training step: token loss of the training-time test, and a loss of each signal."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from specexit_jax.models.config import DraftConfig
from specexit_jax.models.draft_layer import Draft
from specexit_jax.models.target import Target
from specexit_jax.training.losses import signal_errors, signal_losses
from specexit_jax.training.state import TrainState, apply_gradients, init_state
from specexit_jax.training.teacher import Teacher, run_teacher
from specexit_jax.training.ttt import judge_steps, run_steps, shift_left, token_loss

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
# Weights that only one loss reads; they are left out of the norms of shared gradients.
_UNSHARED = ("lm_head", "signal_head")


@dataclasses.dataclass(frozen=True)
class DraftTrainingConfig:
    """steps: of training-time test, the chain length K in decoding. decay: a step's weight relative to the step before
    it.

    temperature: the sampler's, for the expected acceptance. signal_weights: of the draft's signals, in order; under
    `gradnorm` they multiply ||grad L_tok|| / ||grad L_i|| on the shared weights, averaged with gradnorm_decay.
    teacher_chunk, loss_chunk: tokens of a row whose full-vocabulary and draft-vocabulary logits exist at once. remat:
    layers and logits are computed again in the backward pass; for rows longer than loss_chunk they always are.
    """

    steps: int = 5
    decay: float = 0.8
    temperature: float = 1.0
    signal_weights: tuple[float, ...] | None = None
    weighting: str = "fixed"
    gradnorm_decay: float = 0.9
    teacher_chunk: int = 1024
    loss_chunk: int = 1024
    remat: bool = False

    def __post_init__(self):
        if self.weighting not in ("fixed", "gradnorm"):
            raise ValueError(f"signal weighting is {self.weighting!r}; choose 'fixed' or 'gradnorm'")
        if self.steps < 1:
            raise ValueError(f"training-time test needs at least 1 step, not {self.steps}")


def check_weighting(config: DraftTrainingConfig, draft: DraftConfig) -> None:
    """Raises ValueError for GradNorm at 'fc': it compares gradients on shared weights, the signal rows share none, and
    its ratio would be 0 / 0."""
    if config.weighting == "gradnorm" and draft.signals != "draft":
        raise ValueError(
            f"weighting 'gradnorm' needs the signals at 'draft', not at {draft.signals!r}, where they share no weight "
            "with the token loss; use weighting 'fixed'"
        )


def base_weights(config: DraftTrainingConfig, draft: DraftConfig) -> jax.Array:
    """float32[S] of the draft's signals. Raises ValueError where there are more or fewer weights than signals."""
    rows = draft.signal_rows
    weights = config.signal_weights or (1.0,) * rows
    if rows and len(weights) != rows:
        raise ValueError(
            f"there are {len(weights)} signal weights for the {rows} signals {', '.join(draft.signal_names)}: give one each "
            "(train.signal_weights)"
        )
    return jnp.asarray(weights[:rows], jnp.float32)


def init_draft_state(
    params: dict, optimizer: optax.GradientTransformation, config: DraftTrainingConfig, draft: DraftConfig
) -> TrainState:
    """A fresh state. Under GradNorm it includes the averaged signal weights, which start from 1."""
    check_weighting(config, draft)
    return init_state(
        params, optimizer, jnp.ones(draft.signal_rows, jnp.float32) if config.weighting == "gradnorm" else ()
    )


def draft_losses(
    params: dict, teacher: Teacher, batch: Batch, *, draft: Draft, config: DraftTrainingConfig
) -> tuple[jax.Array, Metrics]:
    """float32[1 + S] (token loss, then those of the signals, S = 0 without any) and all metrics.

    The batch holds tokens, segment_ids, positions, loss_mask [B, T] and, with signals, labels and label_mask [B, T, S].
    """
    remat = config.remat or batch["tokens"].shape[1] > config.loss_chunk
    hiddens, raw = run_steps(draft, params, teacher.features, teacher.embedded, batch, config.steps, remat)
    chains = judge_steps(draft, params, hiddens, teacher, config.temperature, config.loss_chunk, remat)
    tokens, metrics = token_loss(chains, teacher, batch, config.decay)
    if raw is None:
        return tokens[None], metrics
    segments = batch["segment_ids"]
    known = segments > 0
    if draft.config.signals == "draft":  # the first token of a document has no pair before it
        known = known & (shift_left(segments, -1) == segments)
    mask = batch["label_mask"].astype(jnp.float32) * known[..., None].astype(jnp.float32)
    names = draft.config.signal_names
    signals = signal_losses(raw, batch["labels"], mask, names)
    metrics |= {f"{name}_loss": signals[i] for i, name in enumerate(names)}
    return jnp.concatenate([tokens[None], signals]), metrics | signal_errors(raw, batch["labels"], mask, names)


def shared_norm(gradients: dict) -> jax.Array:
    """Norm over the weights that token and signal losses share."""
    return optax.tree.norm({name: value for name, value in gradients.items() if name not in _UNSHARED})


def gradnorm_weights(gradients: list[dict], average: jax.Array, decay: float) -> jax.Array:
    """float32[S], the moving average of ||grad L_tok|| / (||grad L_i|| + eps) (docs/method.md §2)."""
    token, *signals = (shared_norm(g) for g in gradients)
    ratios = jnp.stack([token / (norm + 1e-8) for norm in signals])
    # A batch without a label has no gradient to compare; its ratio would be 1e8.
    seen = jnp.stack(signals) > 0
    return jnp.where(seen, decay * average + (1.0 - decay) * ratios, average)


def draft_step(
    state: TrainState,
    batch: Batch,
    target_params: dict,
    d2t: jax.Array,
    *,
    target: Target,
    draft: Draft,
    optimizer: optax.GradientTransformation,
    config: DraftTrainingConfig,
    feature_scale: jax.Array | None = None,
) -> tuple[TrainState, Metrics]:
    """One update of the draft; the target is frozen. feature_scale [3D]: see `draft_run.feature_scale`."""
    teacher = run_teacher(target, target_params, batch, d2t, config.temperature, config.teacher_chunk)
    if feature_scale is not None:
        teacher = teacher.replace(features=teacher.features * feature_scale.astype(teacher.features.dtype)[None, None])
    losses_of = functools.partial(draft_losses, teacher=teacher, batch=batch, draft=draft, config=config)
    losses, pull, metrics = jax.vjp(losses_of, state.params, has_aux=True)
    base = base_weights(config, draft.config)
    if config.weighting == "gradnorm":
        apart = [pull(row)[0] for row in jnp.eye(len(losses), dtype=jnp.float32)]
        average = gradnorm_weights(apart, state.extra, config.gradnorm_decay)
        weights = jnp.concatenate([jnp.ones(1, jnp.float32), base * average])
        gradients = jax.tree.map(lambda *g: sum(w * x for w, x in zip(weights, g, strict=True)), *apart)
        state = state.replace(extra=average)
        metrics |= {f"{name}_weight": weights[i + 1] for i, name in enumerate(draft.config.signal_names)}
    else:
        weights = jnp.concatenate([jnp.ones(1, jnp.float32), base])
        gradients = pull(weights)[0]
    tokens = jnp.sum((batch["segment_ids"] > 0).astype(jnp.int32))
    metrics |= {"loss": jnp.sum(weights * losses), "grad_norm": optax.tree.norm(gradients), "tokens": tokens}
    return apply_gradients(state, gradients, optimizer), metrics


def make_draft_step(
    target: Target,
    target_params: dict,
    draft: Draft,
    d2t: jax.Array,
    optimizer: optax.GradientTransformation,
    config: DraftTrainingConfig,
    feature_scale: jax.Array | None = None,
    shardings: TrainState | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """`draft_step` compiled; the given state is donated. Raises ValueError on settings that do not fit the draft.

    shardings: of the state, before and after the step; the metrics are then replicated.
    """
    check_weighting(config, draft.config)
    base_weights(config, draft.config)
    check_vocabulary(d2t, draft.config)
    step = functools.partial(
        draft_step, target=target, draft=draft, optimizer=optimizer, config=config, feature_scale=feature_scale
    )
    out = None
    if shardings is not None:
        out = (shardings, NamedSharding(jax.tree.leaves(shardings)[0].mesh, PartitionSpec()))
    compiled = jax.jit(step, donate_argnums=0, out_shardings=out)
    d2t = np.asarray(d2t, np.int32)  # the same on every process
    # Passed as arguments: as constants the target's weights would be copied into the program.
    return lambda state, batch: compiled(state, batch, target_params, d2t)


def check_vocabulary(d2t: jax.Array, draft: DraftConfig) -> None:
    """d2t must name draft_vocab_size different target ids (absolute ids, not the offsets of checkpoint files)."""
    ids = np.asarray(d2t)
    if ids.shape != (draft.draft_vocab_size,) or len(np.unique(ids)) != len(ids):
        raise ValueError(
            f"d2t must hold {draft.draft_vocab_size} different target ids, not {len(np.unique(ids))} in {ids.shape}"
        )
    if len(ids) == draft.vocab_size and (ids[1:] < ids[:-1]).any():
        raise ValueError("d2t names all target ids, but not in ascending order")
    if ids.min() < 0 or ids.max() >= draft.vocab_size:
        raise ValueError(f"d2t holds ids {ids.min()} to {ids.max()}, outside the target's 0 to {draft.vocab_size - 1}")
