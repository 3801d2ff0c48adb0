"""A tiny random target and draft, random prompts, and how the decoding tests call the loop on them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from specexit_jax.decoding.drafts import drafting
from specexit_jax.decoding.loop.speculative import decode
from specexit_jax.decoding.rows import PromptRows, SlotRequest
from specexit_jax.decoding.sampling import Sampling, SamplingRows
from specexit_jax.decoding.spec import DecodeParams, DecodeSpec
from specexit_jax.exits.boundaries import TokenBoundaries
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.models.draft import init_draft
from specexit_jax.models.target import init_target

# Options for fast compilation instead of fast code: these tests spend most of their time on compiling.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
VOCABULARY, STOP, END, BOUNDARIES = 40, 1, 2, (3, 4, 5, 6)
SAMPLED = Sampling(temperature=0.9)
TARGET = TargetConfig("qwen3", VOCABULARY, 16, 24, 4, 2, 1, 8, qk_norm=True, capture=(1, 2, 3))
DRAFT = DraftConfig(16, 16, 24, 2, 1, 8, vocab_size=VOCABULARY, draft_vocab_size=24, signals="fc")


@functools.cache
def tiny_params(target=TARGET, draft=DRAFT, seed=0) -> DecodeParams:
    keys = jax.random.split(jax.random.key(seed), 2)
    ids = np.sort(np.random.default_rng(seed).permutation(target.vocab_size)[: draft.draft_vocab_size])
    return DecodeParams(init_target(target, keys[0]), init_draft(draft, keys[1]), jnp.asarray(ids, jnp.int32))


@dataclasses.dataclass(frozen=True)
class SampledSpec(DecodeSpec):
    """A spec, and how the rows that it decodes are sampled."""

    sampling: Sampling = SAMPLED

    def __post_init__(self):
        object.__setattr__(self, "rule", "keyed" if self.sampling.greedy else self.sampling.rule)
        super().__post_init__()

    @property
    def bare(self) -> DecodeSpec:
        """The spec that the loop is compiled for."""
        return DecodeSpec(**{field.name: getattr(self, field.name) for field in dataclasses.fields(DecodeSpec)})

    def rows(self, rows: PromptRows) -> PromptRows:
        return rows.replace(sampling=SamplingRows.of([self.sampling] * rows.size))


def tiny_spec(draft_tokens=3, **changes) -> SampledSpec:
    spec = SampledSpec(
        target=TARGET,
        draft=DRAFT,
        draft_tokens=draft_tokens,
        sampling=SAMPLED,
        buffer_length=40,
        stop_ids=(STOP,),
        end_think_ids=(END,),
    )
    return dataclasses.replace(spec, **changes)


def boundary_table() -> TokenBoundaries:
    return TokenBoundaries(jnp.zeros((VOCABULARY,), bool).at[jnp.array(BOUNDARIES, jnp.int32)].set(True))


@dataclasses.dataclass(frozen=True)
class Requests:
    """Random prompts of 2 to 9 tokens, with their keys, thinking states and length limits."""

    prompts: np.ndarray
    prompt_length: np.ndarray
    keys: jax.Array
    thinking: np.ndarray
    max_length: np.ndarray

    @classmethod
    def random(cls, batch: int, seed: int, buffer_length=40, vocabulary=VOCABULARY):
        rng = np.random.default_rng(seed)
        lengths = rng.integers(2, 10, batch)
        prompts = rng.integers(7, vocabulary, (batch, 9)) * (np.arange(9)[None] < lengths[:, None])
        limits = np.minimum(lengths + rng.integers(1, 40, batch), buffer_length)
        return cls(
            prompts.astype(np.int32),
            lengths.astype(np.int32),
            jax.random.split(jax.random.key(seed), batch),
            rng.random(batch) < 0.9,
            limits.astype(np.int32),
        )

    def row(self, index: int) -> "Requests":
        return Requests(*(getattr(self, field.name)[index : index + 1] for field in dataclasses.fields(self)))

    def rows(self) -> PromptRows:
        """The rows of these requests; their sampling comes from the spec (`SampledSpec.rows`)."""
        sampling = SamplingRows.of([SAMPLED] * len(self.prompts))
        told = self.prompts, self.prompt_length, self.keys, self.thinking, self.max_length
        return PromptRows(*told, sampling, np.ones(len(self.prompts), bool))


def run(spec, params, rows, policy, boundaries, sampled: SampledSpec | None = None):
    """`decode`, compiled with QUICK; the result as numpy arrays. sampled: how the rows are sampled, where not as `spec` says."""
    return jax.device_get(_run(spec.bare, params, (sampled or spec).rows(rows), policy, boundaries))


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def _run(spec, params, *arguments):
    return decode.__wrapped__(spec, params, *arguments)


def rigged(monkeypatch):
    """`decode` with rigged drafts. Its first array argument holds the true tokens [B, S].

    Drafts are the true tokens of their positions, except at spoilt positions (`is_spoilt`), so steps of every acceptance length
    occur. If the true tokens are those of a run without exits, an exit cuts off accepted drafts.
    """
    known = {}

    def propose(loop, state, pairs, last, live):
        ahead = state.length[:, None] + jnp.arange(1, loop.spec.draft_tokens + 1, dtype=jnp.int32)[None, :]
        drafts = jnp.take_along_axis(known["truth"], ahead, axis=1, mode="clip")
        rows = jnp.arange(ahead.shape[0], dtype=jnp.int32)[:, None]
        return jnp.where(is_spoilt(ahead, rows), (drafts + 1) % VOCABULARY, drafts), pairs.cache

    @functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
    def run_rigged(spec, params, truth, *arguments):
        known["truth"] = truth
        return decode.__wrapped__(spec, params, *arguments)

    def decoded(spec, params, truth, rows, policy, boundaries):
        return jax.device_get(run_rigged(spec.bare, params, truth, spec.rows(rows), policy, boundaries))

    monkeypatch.setattr(drafting, "propose", propose)
    return decoded


def is_spoilt(position, row):
    """Whether the draft of a position is wrong: about one position in seven, at irregular distances."""
    return (position * (position + 3) + 5 * row) % 7 == 0


def slot_request(spec: SampledSpec, requests: Requests, row: int) -> SlotRequest:
    length, key = int(requests.prompt_length[row]), np.asarray(jax.random.key_data(requests.keys))[row]
    prompt = tuple(requests.prompts[row, :length].tolist())
    return SlotRequest(prompt, key, bool(requests.thinking[row]), int(requests.max_length[row]), spec.sampling)
