"""Training-time test: the draft on its own outputs for k steps, as decoding will use it (docs/method.md §9).

Step i at index t reads the embedding of token t + 1 + i and the hidden of step i - 1 at t (step 0: the target's feature of t),
sits at RoPE position t + i, attends causally to step 0 and at t alone to steps 1 .. i, and predicts token t + 2 + i,
for which the target's logits are those at t + 1 + i. A wrong offset here raises no error: it shows as low acceptance.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from specexit_jax.backend import rows_apart
from specexit_jax.models.draft_layer import Draft
from specexit_jax.training.chunks import map_chunks
from specexit_jax.training.losses import masked_mean, soft_cross_entropy
from specexit_jax.training.teacher import OUTSIDE, Teacher
from specexit_jax.training.vocabulary import head_apart, likeliest, logits_apart, rows_together


@flax.struct.dataclass
class Chain:
    """The result of step i at each index t: `loss` float32 [B, T] and three acceptances, float32 [B, T], of its
    likeliest token: greedy (it is the target's likeliest), expected (its probability under the target's sampler) and
    trace (it is the trace's token, which is how position-keyed decoding of this trace accepts)."""

    loss: jax.Array
    greedy: jax.Array
    expected: jax.Array
    trace: jax.Array


def shift_left(values: jax.Array, count: int) -> jax.Array:
    """values[:, t + count] at t, zeros beyond the end; [B, T, ...]. A negative count shifts right."""
    pad = [(0, 0)] * values.ndim
    pad[1] = (max(-count, 0), max(count, 0))
    padded = jnp.pad(values, pad)
    return padded[:, max(count, 0) : max(count, 0) + values.shape[1]]


def run_steps(
    draft: Draft,
    params: dict,
    features: jax.Array,
    embedded: jax.Array,
    batch: dict[str, jax.Array],
    steps: int,
    remat: bool = False,
) -> tuple[list[jax.Array], jax.Array | None]:
    """Hiddens [B, T, E] of steps 0 .. steps - 1, and raw signals [B, T, S] of token t itself (None: no signals).

    features [B, T, A] and embedded [B, T, D] are of token t, unshifted. remat: the backward pass computes each step's
    layer again from its input; only its hidden, keys and values are kept. The steps after the first are then one body, compiled
    once, that goes over room for the keys and values of all of them.
    """
    variables = {"params": params}
    ahead = jnp.pad(embedded, [(0, 0), (0, steps), (0, 0)])

    def one(variables, ahead, hidden, earlier, step):
        return draft.apply(
            variables,
            jax.lax.dynamic_slice_in_dim(ahead, 1 + step, embedded.shape[1], axis=1),
            hidden,
            batch["positions"] + jnp.int32(step),
            segment_ids=batch["segment_ids"],
            earlier=earlier,
            method="layer",
        )

    hidden, raw = draft.apply(variables, features, method="fuse")
    if remat:
        hiddens = _in_one_body(jax.checkpoint(functools.partial(one, variables, ahead)), hidden, steps)
    else:
        hiddens, earlier = [], ()
        for step in range(steps):
            hidden, keys_values = one(variables, ahead, hidden, earlier, step)
            hiddens.append(hidden)
            earlier = (*earlier, keys_values)
    if draft.config.signals == "draft":
        # The pair at index t has read token t + 1, so its signal belongs to that token.
        raw = shift_left(draft.apply(variables, hiddens[0], method="signal"), -1)
    return hiddens, raw


def _in_one_body(one: Callable, hidden: jax.Array, steps: int) -> list[jax.Array]:
    """The hiddens of all steps, one(hidden, earlier, step). Steps 1 .. are the iterations of a scan."""
    hidden, first = one(hidden, (), jnp.int32(0))
    if steps == 1:
        return [hidden]
    kept = steps - 2  # of steps 1 .. steps - 2 the keys and values are read by a later one

    def body(carry, step):
        hidden, rooms = carry
        earlier = [(*(room[i] for room in rooms), i < step - 1) for i in range(kept)]
        hidden, own = one(hidden, (first, *earlier), step)
        if kept:  # the last step's go over those of the one before it, and are read by none
            rooms = [
                jax.lax.dynamic_update_index_in_dim(room, x, step - 1, 0) for room, x in zip(rooms, own, strict=True)
            ]
        return (hidden, rooms), hidden

    rooms = [jnp.zeros((kept, *x.shape), x.dtype) for x in first]
    _, later = jax.lax.scan(body, (hidden, rooms), jnp.arange(1, steps, dtype=jnp.int32))
    return [hidden, *later]


def judge(
    logits: jax.Array,
    teacher_logits: jax.Array,
    logsumexp: jax.Array,
    top: jax.Array,
    token: jax.Array,
    temperature: float,
) -> Chain:
    """A step's logits [B, T, W] against the teacher's, [B, T, W] and [B, T], about the token that they predict."""
    best = likeliest(logits)
    greedy = (best == top).astype(jnp.float32)
    expected = greedy
    if temperature:
        chosen = jnp.take_along_axis(teacher_logits, best[..., None], axis=-1)[..., 0]
        expected = jnp.exp(chosen / temperature - logsumexp)
    return Chain(
        loss=soft_cross_entropy(logits, teacher_logits),
        greedy=greedy,
        expected=expected,
        trace=(best == token).astype(jnp.float32),
    )


def chain_masks(batch: dict[str, jax.Array], steps: int) -> list[jax.Array]:
    """bool[B, T] per step: token t + 2 + step and the root t + 1 were both written by the model, in t's document."""
    segments, written = batch["segment_ids"], batch["loss_mask"]
    root = shift_left(written, 1) & (segments > 0)
    return [
        root & shift_left(written, 2 + step) & (shift_left(segments, 2 + step) == segments) for step in range(steps)
    ]


def judge_steps(
    draft: Draft,
    params: dict,
    hiddens: list[jax.Array],
    teacher: Teacher,
    temperature: float,
    chunk: int = 1024,
    remat: bool = False,
) -> list[Chain]:
    """Judges every step's hidden [B, T, E]. Logits, including the teacher's, exist for `chunk` tokens of a row at a
    time. With `remat` they are computed again in the backward pass; without it (k + 1) x B x T x W floats are kept."""

    head, headed, size = head_apart(teacher.head), params, teacher.head.shape[1]
    if draft.config.own_head:
        headed = params | {"lm_head": head_apart(params["lm_head"])}

    def one(*parts):
        """Judges one chunk. The teacher's arrays reach steps + 1 tokens further."""
        *hiddens, teacher_hidden, logsumexp, top, tokens = parts
        together = rows_together(teacher_hidden, size)
        teacher_logits = logits_apart(jnp.einsum("btd,dw->btw", together, head, preferred_element_type=jnp.float32))
        found = []
        for step, hidden in enumerate(hiddens):
            about = slice(1 + step, 1 + step + hidden.shape[1])
            following = slice(about.start + 1, about.stop + 1)
            told = (x[:, about] for x in (teacher_logits, logsumexp, top))
            logits = logits_apart(draft.apply({"params": headed}, rows_together(hidden, size), head, method="head"))
            judged = judge(logits, *told, tokens[:, following], temperature)
            found.append(jax.tree.map(rows_apart, judged))
        return found

    beside = (teacher.hidden, teacher.logsumexp, teacher.top, teacher.tokens)
    one = jax.checkpoint(one) if remat else one
    return map_chunks(one, chunk, *hiddens, beside=beside, ahead=len(hiddens) + 1)


def token_loss(
    chains: list[Chain], teacher: Teacher, batch: dict[str, jax.Array], decay: float
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Sum over steps of decay^i (normalised) times the mean soft cross entropy, and the acceptance metrics.

    Where the target's likeliest token is outside the draft vocabulary, the loss is masked and acceptance counts a miss.
    """
    masks = chain_masks(batch, len(chains))
    weights = [decay**step for step in range(len(chains))]
    loss = jnp.zeros((), jnp.float32)
    for step, (chain, mask, weight) in enumerate(zip(chains, masks, weights, strict=True)):
        inside = shift_left(teacher.top, 1 + step) != OUTSIDE
        loss = loss + weight / sum(weights) * masked_mean(chain.loss, mask & inside)
    return loss, {"token_loss": loss, **acceptance(chains, masks)}


def acceptance(chains: list[Chain], masks: list[jax.Array]) -> dict[str, jax.Array]:
    """accept_<i>: greedy agreement at step i. The *_accept_length are 1 + sum of prefix survival (bonus token counted):
    simulated (greedy agreement), expected (under the sampler) and trace, over the indices where a whole chain fits.
    `chains` is how many those are."""
    whole = jnp.stack(masks).all(axis=0)
    metrics = {f"accept_{i}": masked_mean(c.greedy, m) for i, (c, m) in enumerate(zip(chains, masks, strict=True))}
    for name, kind in (("simulated", "greedy"), ("expected", "expected"), ("trace", "trace")):
        survival = jnp.cumprod(jnp.stack([getattr(chain, kind) for chain in chains]), axis=0)
        metrics[f"{name}_accept_length"] = 1.0 + masked_mean(jnp.sum(survival, axis=0), whole)
    return {**metrics, "chains": jnp.sum(whole.astype(jnp.int32))}
