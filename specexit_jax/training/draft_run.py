"""Training of a draft for one frozen target, from labelled rows to a draft's folder."""

import dataclasses
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from specexit_jax.backend import on_mesh
from specexit_jax.data.batches import Batches, RowSource
from specexit_jax.decoding.sampling import PRNG
from specexit_jax.models.checkpoints.hf import save_draft
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.models.draft import draft_of, init_draft
from specexit_jax.models.draft_layer import DraftBundle
from specexit_jax.models.target import Target
from specexit_jax.parallel.distributed import from_first, is_first
from specexit_jax.parallel.sharding import fetched, rows_of_process, tree_shardings
from specexit_jax.storage.checkpoint import write_json
from specexit_jax.training.draft import DraftTrainingConfig, init_draft_state, make_draft_step
from specexit_jax.training.features import mean_square
from specexit_jax.training.loop import Hook, LoopConfig, fit
from specexit_jax.training.optimizer import OptimizerConfig, learning, make_optimizer, schedules
from specexit_jax.training.signal_fit import fit_signals, sentence, signal_inputs
from specexit_jax.training.state import TrainState
from specexit_jax.training.teacher import STORED

_SCALE_ROWS = 8  # rows whose features give the scale
_TRAINED_ON = ("tokens", "segment_ids", "positions", "loss_mask", "labels", "label_mask", *STORED)


def folded(params: dict, scale: np.ndarray | None) -> dict:
    """Trained parameters with the feature scale, if there is one, folded into `fc`."""
    return params if scale is None else params | {"fc": params["fc"] * scale[:, None]}


@dataclasses.dataclass(frozen=True)
class DraftRun:
    """Rows per batch, the seed of their order and of the initial parameters, the losses, and every how many steps the
    held-out rows are evaluated.

    init: the initial output head and norm: `random`, or `target` (a copy of the target's, restricted to the draft's
    vocabulary); `builtin`: all of a layer that is given. learn: `all`, or `signals` alone, with everything else frozen.
    signal_positions, signal_tokens: the most boundary tokens that the signals are solved on at the end, and the most tokens
    that the target reads to find them (`signal_positions.spread_positions`); 0 positions leave the signals as trained.
    """

    batch_size: int
    seed: int
    losses: DraftTrainingConfig
    evaluate_every: int = 200
    init: str = "random"
    signal_positions: int = 200_000
    signal_tokens: int = 100_000_000
    learn: str = "all"

    def __post_init__(self):
        if self.init not in ("random", "target", "builtin"):
            raise ValueError(f"init of the draft is {self.init!r}; choose 'random', 'target' or 'builtin'")
        if self.learn not in ("all", "signals"):
            raise ValueError(f"what the draft learns is {self.learn!r}; choose 'all' or 'signals'")


def train_draft(
    run: DraftRun,
    target: TargetConfig,
    target_params: dict,
    draft: DraftConfig,
    d2t: np.ndarray,
    rows: RowSource,
    optimizer_config: OptimizerConfig,
    loop: LoopConfig,
    workdir: Path,
    look: Callable[[dict], Mapping[str, float]] | None = None,
    mesh: Mesh | None = None,
    held_out: RowSource | None = None,
    layer: dict | None = None,
) -> DraftBundle:
    """Trains in `workdir`, resuming there, and writes `workdir/draft_model`, and `workdir/signal_fit.json` where signals were
    solved.

    look: computes metrics of the parameters on held-out rows, written to metrics.jsonl as `held_out_...`; nothing is
    selected by them. held_out: rows of other traces, which choose between solved and trained signals.
    layer: the parameters that `builtin` starts from; of signals it may have none.
    mesh: target and draft are sharded over it, and batches by row. It changes the result by rounding only.
    """
    share = None if mesh is None else rows_of_process(mesh, run.batch_size)
    optimizer = learning(run.learn, make_optimizer(optimizer_config))
    if run.learn == "signals" and draft.signals != "draft":
        raise ValueError("Only signals placed at 'draft' are learnt alone: set train.signals to 'draft'.")
    _require_same_data(workdir, run, rows, d2t)
    scale = feature_scale(target, target_params, rows, run.batch_size, mesh) if draft.scales_features else None
    with on_mesh(mesh):
        state, shardings = first_state(run, target, target_params, draft, d2t, optimizer, mesh, layer)
        step = make_draft_step(
            Target(target), target_params, draft_of(draft), d2t, optimizer, run.losses, scale, shardings
        )  # fmt: skip
        hooks = ()
        if look is not None:
            hooks = (Hook(run.evaluate_every, lambda _, state: _held_out(look(folded(state.params, scale)))),)
    batches = Batches(_Columns(rows, _TRAINED_ON), run.batch_size, run.seed, share)

    def step_on_mesh(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        with on_mesh(mesh):  # for the step only: agreement between processes uses a mesh of its own
            return step(state, batch)

    state = fit(loop, state, step_on_mesh, batches, workdir, hooks, mesh, schedules(optimizer_config))
    params = fetched(folded(state.params, scale), mesh)
    if draft.signals != "none" and run.signal_positions:
        reader = signal_inputs(target, target_params, draft, params, mesh)
        budget, trained = (run.signal_positions, run.signal_tokens), signals_of(draft, params)
        signals, told = fit_signals(
            reader, rows, held_out, trained, draft.signal_names, budget, run.seed, run.batch_size
        )  # fmt: skip
        params = with_signals(draft, params, from_first(signals))
        if is_first():
            write_json(workdir / "signal_fit.json", told)
            print(sentence(told), flush=True)
    bundle = DraftBundle(config=draft, params=params, d2t=jnp.asarray(d2t))
    if is_first():
        save_draft(workdir / "draft_model", bundle)
    return bundle


def signals_of(draft: DraftConfig, params: dict) -> np.ndarray:
    """float32 [A, S]: the columns of the draft's signals, for either placement."""
    if draft.signals == "draft":
        return np.asarray(params["signal_head"], np.float32)
    return np.asarray(params["fc"][:, draft.hidden_size :], np.float32)


def with_signals(draft: DraftConfig, params: dict, signals: np.ndarray) -> dict:
    """The draft's parameters with these columns [A, S] as its signal weights, for either placement."""
    if draft.signals == "draft":
        return params | {"signal_head": signals}
    return params | {"fc": np.concatenate([params["fc"][:, : draft.hidden_size], signals], axis=1)}


def first_state(
    run: DraftRun,
    target: TargetConfig,
    target_params: dict,
    draft: DraftConfig,
    d2t: np.ndarray,
    optimizer,
    mesh,
    layer: dict | None = None,
) -> tuple[TrainState, TrainState | None]:
    """A fresh state, created directly with its shardings, and those shardings (None without a mesh)."""
    if (run.init == "builtin") != (layer is not None):
        raise ValueError(
            "init 'builtin' starts from a layer that is given, and no other does: give the target's MTP layer."
        )

    def fresh(target_params: dict, layer: dict | None) -> TrainState:
        params = init_draft(draft, jax.random.key(run.seed, impl=PRNG))
        if run.init == "target":
            params = _headed(params, draft, target, target_params, jnp.asarray(d2t, jnp.int32))
        if layer is not None:
            params = params | jax.tree.map(lambda value: value.astype(jnp.float32), layer)
        return init_draft_state(params, optimizer, run.losses, draft)

    shardings = None
    if mesh is not None:
        shardings = tree_shardings(jax.eval_shape(fresh, target_params, layer), mesh)
    return jax.jit(fresh, out_shardings=shardings)(target_params, layer), shardings


def _headed(params: dict, draft: DraftConfig, target: TargetConfig, target_params: dict, d2t: jax.Array) -> dict:
    """The parameters with the target's final norm and, for a head of its own, the target's (restricted to the draft's
    vocabulary) as initial values."""
    norm = jax.tree.map(lambda value: value.astype(jnp.float32), target_params["final_norm"])
    if not draft.own_head:
        return params | {"norm": norm}
    if target.tie_embeddings:
        head = jnp.take(target_params["embed"]["embedding"], d2t, axis=0).T
    else:
        head = jnp.take(target_params["lm_head"], d2t, axis=1)
    if head.shape != params["lm_head"].shape:
        raise ValueError(f"init 'target' needs a draft as wide as the target's {head.shape[0]}")
    return params | {"lm_head": head.astype(jnp.float32), "norm": norm}


def feature_scale(
    target: TargetConfig, params: dict, rows: RowSource, batch_size: int, mesh: Mesh | None = None
) -> np.ndarray:
    """float32[3D]: 1 / RMS of every captured feature over the first rows.

    The scale of the residual stream differs by orders of magnitude between layers and coordinates. No norm follows the
    signal rows of `fc`, so under one learning rate they would diverge on features of large scale. The draft is trained
    on scaled features. At the end the scale is folded into `fc` (`folded`), so a saved draft reads unscaled features.
    """
    count = -(-_SCALE_ROWS // batch_size) * batch_size  # whole batches: their rows split over the mesh
    chosen = [rows[number % len(rows)] for number in range(count)]
    first = {name: np.stack([row[name] for row in chosen]) for name in chosen[0]}
    return (1.0 / np.sqrt(mean_square(target, params, first, mesh) + 1e-12)).astype(np.float32)


class _Columns:
    """A source of rows reduced to the columns that a step reads."""

    def __init__(self, source: RowSource, names: tuple[str, ...]):
        self._source, self._names = source, names

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        return {name: values for name, values in self._source[number].items() if name in self._names}


def _held_out(metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"held_out_{name}": value for name, value in metrics.items()}


def _require_same_data(workdir: Path, run: DraftRun, rows: RowSource, d2t: np.ndarray) -> None:
    """Records what a step's batch depends on; raises ValueError if an earlier run in `workdir` used other data."""
    path, first, last = Path(workdir) / "data.json", rows[0], rows[len(rows) - 1]
    facts = {
        "rows": len(rows),
        "row_length": len(first["tokens"]),
        "batch_size": run.batch_size,
        "seed": run.seed,
        "first_row": _checksum(first),
        "last_row": _checksum(last),
        "draft_vocabulary": zlib.crc32(np.asarray(d2t, np.int32).tobytes()),
    }
    if path.exists():
        for name, value in json.loads(path.read_text()).items():
            if facts.get(name) != value:
                raise ValueError(
                    f"{workdir} holds a run on other data ({name} was {value}, is {facts.get(name)}): a resumed run must "
                    "see the same batches; use another workdir, or remove it to start again"
                )
    elif is_first():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, facts)


def _checksum(row: Mapping[str, np.ndarray]) -> int:
    """A checksum of the columns that a step reads, labels included; features are a function of them."""
    names = sorted(set(_TRAINED_ON) - set(STORED))
    return zlib.crc32(b"".join(np.ascontiguousarray(row[name]).tobytes() for name in names if name in row))
