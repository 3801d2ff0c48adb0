"""Evaluation of a draft in training on held-out rows: acceptance, acceptance by position, and the quality of the
signals.

Chains and signals are computed as in the training step; they are counted on the host, chain by chain.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from specexit_jax.annotation.documents import AFTER, BEFORE
from specexit_jax.backend import on_mesh
from specexit_jax.data.packing import Rows
from specexit_jax.evaluation.score_quality import auc, brier, reliability
from specexit_jax.exits.signals import SIGNALS, activate, agreement_column
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.models.draft import draft_of
from specexit_jax.models.draft_layer import Draft
from specexit_jax.models.target import Target
from specexit_jax.parallel.sharding import from_whole, whole
from specexit_jax.training.draft import DraftTrainingConfig
from specexit_jax.training.teacher import OUTSIDE, STORED, run_teacher
from specexit_jax.training.ttt import chain_masks, judge_steps, run_steps, shift_left

KINDS = ("simulated", "expected", "trace")
POSITIONS = (0, 256, 512, 1024, 2048, 4096, 8192, 16384)  # left ends of the table of acceptance against position
_READ = ("tokens", "segment_ids", "positions", "loss_mask", *STORED)


class Seen(NamedTuple):
    """Of all chains at each index t, as `ttt.Chain`: hits float32 [3, K, B, T] in the order of KINDS, loss [K, B, T],
    counted bool [K, B, T] (with a loss: inside) and signals, activated, float32 [B, T, S] of token t (None: none)."""

    hits: np.ndarray
    loss: np.ndarray
    counted: np.ndarray
    inside: np.ndarray
    signals: np.ndarray | None


class HeldOut:
    """Call it with parameters for the metrics of one evaluation; `report` adds tables.

    rows: whole rows, the same on every process; evaluated in batches of `batch_size`, the last batch padded.
    """

    def __init__(
        self,
        target: TargetConfig,
        target_params: dict,
        draft: DraftConfig,
        d2t: np.ndarray,
        losses: DraftTrainingConfig,
        rows: Sequence[Rows],
        batch_size: int,
        mesh: Mesh | None = None,
    ):
        if not len(rows):
            raise ValueError("there are no held-out rows to look at")
        empty = {name: np.zeros_like(values) for name, values in rows[0].items()}
        padded = [*rows, *[empty] * (-len(rows) % batch_size)]
        self._rows = {name: np.stack([row[name] for row in padded]) for name in rows[0]}
        self._size, self._mesh, self._losses = batch_size, mesh, losses
        self._place, self._names = places(self._rows), draft.signal_names
        self._scored = "boundary" in self._rows and draft.signals != "none" and bool(self._known().any())
        look = functools.partial(_look, Target(target), draft_of(draft), losses)
        self._look = jax.jit(look, out_shardings=None if mesh is None else whole(mesh))
        self._frozen = (target_params, np.asarray(d2t, np.int32))

    @property
    def summary(self) -> str:
        """A sentence on what cannot be measured on these rows; "" if everything can."""
        if not np.asarray(chain_masks(self._rows, 1)).any():
            return "The held-out rows hold nothing that a draft could write (train.row_length): acceptance is not looked at."
        if not self._scored and "boundary" in self._rows:
            return "The held-out rows hold no labelled boundary: the signals are not looked at."
        return ""

    def __call__(self, params: dict) -> dict[str, float]:
        """Acceptance per step and overall, before and after T*, by quarters of the traces; scores of the signals."""
        return self._metrics(self._see(params))

    def report(self, params: dict) -> dict:
        """The metrics, acceptance by position (tokens from the first generated one) and the calibration curve."""
        seen = self._see(params)
        found: dict = {"metrics": self._metrics(seen), "positions": self._by_position(seen)}
        if self._scored:
            agree, confidence = self._agreement(seen)
            curve = reliability(agree, confidence, problems=self._documents())
            found["calibration"] = {name: np.asarray(value).tolist() for name, value in curve._asdict().items()}
        return found

    def _see(self, params: dict) -> Seen:
        parts = []
        with on_mesh(self._mesh):
            for start in range(0, len(self._place.index), self._size):
                batch = {name: v[start : start + self._size] for name, v in self._rows.items() if name in _READ}
                parts.append(jax.tree.map(np.asarray, self._look(params, from_whole(batch, self._mesh), *self._frozen)))
        signals = None if parts[0][-1] is None else np.concatenate([part[-1] for part in parts])
        return Seen(
            *(np.concatenate(column, axis=-2) for column in zip(*(p[:-1] for p in parts), strict=True)), signals
        )

    def _metrics(self, seen: Seen) -> dict[str, float]:
        found = {"token_loss": self._token_loss(seen)}
        for step, counted in enumerate(seen.counted):
            found[f"accept_{step}"] = _mean(seen.hits[0, step][counted])
        phase = self._rows.get("phase")
        groups = {"": np.ones_like(self._place.index, bool)}
        groups |= {f"_quarter_{q + 1}": self._place.quarter == q for q in range(4)}
        if phase is not None:
            groups |= {"_before": _next(phase) == BEFORE, "_after": _next(phase) == AFTER}
        for suffix, group in groups.items():
            for kind, length in zip(KINDS, accept_lengths(seen, group), strict=True):
                found[f"{kind}_accept_length{suffix}"] = length
        if self._scored:
            found |= self._signal_scores(seen)
        return {name: value for name, value in found.items() if not math.isnan(value)}  # of an empty group

    def _token_loss(self, seen: Seen) -> float:
        weights = self._losses.decay ** np.arange(len(seen.loss))
        means = [_mean(loss[inside]) for loss, inside in zip(seen.loss, seen.inside, strict=True)]
        return float(weights @ means / weights.sum())

    def _known(self) -> np.ndarray:
        """Boundaries with a label of confidence, bool [B, T]."""
        return self._rows["boundary"] & (self._rows["label_mask"][..., agreement_column(self._names)] > 0)

    def _agreement(self, seen: Seen) -> tuple[np.ndarray, np.ndarray]:
        known = self._known()
        return self._rows["agree"][known] > 0.5, seen.signals[known][:, agreement_column(self._names)]

    def _documents(self) -> list[int]:
        """The document of each boundary of `_agreement`."""
        segments = self._rows["segment_ids"]
        documents = np.arange(len(segments))[:, None] * (int(segments.max()) + 1) + segments
        return documents[
            self._rows["boundary"] & (self._rows["label_mask"][..., agreement_column(self._names)] > 0)
        ].tolist()

    def _signal_scores(self, seen: Seen) -> dict[str, float]:
        boundary, mask, labels = self._rows["boundary"], self._rows["label_mask"], self._rows["labels"]
        found = {}
        for column, name in enumerate(self._names):
            signal, known = SIGNALS[name], boundary & (mask[..., column] > 0)
            values, wanted = seen.signals[known][:, column], labels[known][:, column]
            if signal.event is not None:
                event = self._rows[signal.event][known] > 0.5
                found[f"{name}_auc"] = auc(event, values)
                found[f"{name}_brier"] = brier(event, values)
                found[f"{name}_calibration_error"] = reliability(event, values).error
            else:
                apart = signal.scale.comparable(values) - signal.scale.comparable(wanted)
                found[f"{signal.scale.compared}{name}_mae"] = _mean(np.abs(apart))
        return found

    def _by_position(self, seen: Seen) -> list[dict]:
        edges = (*POSITIONS, np.iinfo(np.int32).max)
        table = []
        for low, high in pairwise(edges):
            group = (self._place.index >= low) & (self._place.index < high)
            chains = int((seen.counted.all(axis=0) & group).sum())
            if chains:
                lengths = {f"{k}_accept_length": v for k, v in zip(KINDS, accept_lengths(seen, group), strict=True)}
                table.append({"from": low, "chains": chains, **lengths})
        return table


class Places(NamedTuple):
    """For the root (token t + 1) of each index t, int [B, T]: its index among the generated tokens of its document, -1
    if it is not one, and the quarter of them that it is in."""

    index: np.ndarray
    quarter: np.ndarray


def places(rows: Rows) -> Places:
    """The starts of the chains in packed rows."""
    index = np.full(rows["tokens"].shape, -1)
    quarter = np.full(rows["tokens"].shape, -1)
    for row, segments in enumerate(rows["segment_ids"]):
        for segment in range(1, int(segments.max()) + 1):
            written = np.flatnonzero((segments == segment) & rows["loss_mask"][row])
            index[row, written] = np.arange(len(written))
            quarter[row, written] = np.arange(len(written)) * 4 // max(len(written), 1)
    return Places(_next(index, -1), _next(quarter, -1))


def accept_lengths(seen: Seen, group: np.ndarray) -> list[float]:
    """Tokens per verify step, bonus token counted, in the order of KINDS, over the complete chains of a `group` of
    indices."""
    chosen = seen.counted.all(axis=0) & group
    return [1.0 + _mean(np.cumprod(hits, axis=0).sum(axis=0)[chosen]) for hits in seen.hits]


def _look(target: Target, draft: Draft, losses: DraftTrainingConfig, params, batch, target_params, d2t):
    teacher = run_teacher(target, target_params, batch, d2t, losses.temperature, losses.teacher_chunk)
    hiddens, raw = run_steps(draft, params, teacher.features, teacher.embedded, batch, losses.steps)
    chains = judge_steps(draft, params, hiddens, teacher, losses.temperature, losses.loss_chunk)
    counted = jnp.stack(chain_masks(batch, losses.steps))
    known = jnp.stack([shift_left(teacher.top, 1 + step) != OUTSIDE for step in range(losses.steps)])
    hits = jnp.stack([jnp.stack([getattr(c, name) for c in chains]) for name in ("greedy", "expected", "trace")])
    loss = jnp.stack([chain.loss for chain in chains])
    return hits, loss, counted, counted & known, None if raw is None else activate(raw, draft.config.signal_names)


def _next(values: np.ndarray, last: int = 0) -> np.ndarray:
    """values[:, t + 1] at t."""
    return np.concatenate([values[:, 1:], np.full_like(values[:, :1], last)], axis=1)


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else float("nan")
