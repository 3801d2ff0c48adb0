"""A draft trained on labelled rows for one frozen target, from rows to an EAGLE-3 folder."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from specexit_jax.data.packing import Rows, make_batches
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.models.draft import Draft, DraftBundle, init_draft
from specexit_jax.models.hf import save_draft
from specexit_jax.models.target import Target
from specexit_jax.training.draft import DraftTrainingConfig, init_draft_state, make_draft_evaluation, make_draft_step
from specexit_jax.training.loop import Hook, LoopConfig, fit
from specexit_jax.training.optimizer import OptimizerConfig, make_optimizer
from specexit_jax.training.signal_fit import labelled_positions, solve_signals


def draft_config(target: TargetConfig, intermediate_size: int, draft_vocab_size: int, signals: str) -> DraftConfig:
    """A draft layer of the target's own width and heads (a query head a key head, as one layer can afford it)."""
    return DraftConfig(
        hidden_size=target.hidden_size,
        target_hidden_size=target.hidden_size,
        intermediate_size=intermediate_size,
        num_heads=target.num_heads,
        num_kv_heads=target.num_kv_heads,
        head_dim=target.head_dim,
        vocab_size=target.vocab_size,
        draft_vocab_size=draft_vocab_size,
        rms_norm_eps=target.rms_norm_eps,
        rope_theta=target.rope_theta,
        rope_scaling=target.rope_scaling,
        signals=signals,
        max_position=target.max_position,
        dtype=target.dtype,
        attention=target.attention,
    )


def feature_scale(target: TargetConfig, params: dict, rows: Rows, count: int = 8) -> np.ndarray:
    """float32[3D]: 1 / RMS of every captured feature over the first `count` rows.

    The residual stream's scale differs by orders of magnitude between layers and coordinates. Under one learning rate the
    signal rows of `fc`, which no norm follows, would diverge on the loud ones. The draft is trained on scaled features
    and `fc` takes the scale in at the end (`folded`), so a saved draft reads the features as they are.
    """
    rows = {name: jnp.asarray(values[:count]) for name, values in rows.items()}
    out = Target(target).apply(
        {"params": params}, rows["tokens"], rows["positions"], segment_ids=rows["segment_ids"], logits=False
    )
    real = np.asarray(out.features)[np.asarray(rows["segment_ids"]) > 0]
    return (1.0 / np.sqrt(np.mean(np.square(real, dtype=np.float64), axis=0) + 1e-12)).astype(np.float32)


def folded(params: dict, scale: jax.Array) -> dict:
    """Trained parameters with the feature scale taken into `fc`."""
    return params | {"fc": params["fc"] * scale[:, None]}


@dataclasses.dataclass(frozen=True)
class DraftRun:
    """Rows in a batch, the seed of their order and of the first parameters, the losses, and how often (in steps) the
    held-out rows are looked at, the first `evaluate_rows` of them.

    signal_positions: at most so many are used to solve signals placed at `fc` in the end; 0 leaves them as trained.
    """

    batch_size: int
    seed: int
    losses: DraftTrainingConfig
    evaluate_every: int = 200
    evaluate_rows: int = 16
    signal_positions: int = 200_000


def train_draft(
    run: DraftRun,
    target: TargetConfig,
    target_params: dict,
    draft: DraftConfig,
    d2t: np.ndarray,
    rows: Rows,
    optimizer_config: OptimizerConfig,
    loop: LoopConfig,
    workdir: Path,
    held_out: Rows | None = None,
) -> DraftBundle:
    """Trains in `workdir`, resuming there, and writes `workdir/draft_model`.

    held_out: labelled rows of another split, whose metrics join metrics.jsonl as `held_out_...`; nothing is chosen by them.
    """
    optimizer = make_optimizer(optimizer_config)
    scale = jnp.asarray(feature_scale(target, target_params, rows))
    state = init_draft_state(init_draft(draft, jax.random.key(run.seed)), optimizer, run.losses, draft)
    step = make_draft_step(Target(target), target_params, Draft(draft), jnp.asarray(d2t), optimizer, run.losses, scale)
    hooks = ()
    if held_out is not None:
        evaluate = make_draft_evaluation(Target(target), target_params, Draft(draft), d2t, run.losses)
        hooks = (_held_out_hook(run, evaluate, held_out, lambda params: folded(params, scale)),)
    state = fit(loop, state, step, make_batches(rows, run.batch_size, run.seed), workdir, hooks)
    params = folded(state.params, scale)
    if draft.signals == "fc" and run.signal_positions:
        params = _solved(run, target, target_params, draft, params, rows)
    bundle = DraftBundle(config=draft, params=params, d2t=jnp.asarray(d2t))
    save_draft(workdir / "draft_model", bundle)
    return bundle


def _solved(run: DraftRun, target: TargetConfig, target_params: dict, draft: DraftConfig, params: dict, rows: Rows):
    """The parameters with the signal rows of `fc` at their optimum."""
    found = labelled_positions(target, target_params, rows, run.signal_positions, run.seed, run.batch_size)
    return params | {"fc": params["fc"].at[:, draft.hidden_size :].set(solve_signals(*found))}


def _held_out_hook(run: DraftRun, evaluate, rows: Rows, fold: Callable[[dict], dict]) -> Hook:
    """Metrics of the first held-out rows, in batches of one shape, at most the training's (a last, smaller one is left out)."""
    count = min(run.evaluate_rows, len(rows["tokens"]))
    size = min(run.batch_size, count)
    starts = range(0, count - size + 1, size)
    batches = [{name: values[i : i + size] for name, values in rows.items()} for i in starts]

    def look(_: int, state) -> dict[str, float]:
        return {f"held_out_{name}": value for name, value in evaluate(fold(state.params), batches).items()}

    return Hook(run.evaluate_every, look)
