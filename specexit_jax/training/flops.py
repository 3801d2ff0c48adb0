"""The FLOPs that a step of draft training needs, computed from sizes; used for model FLOPs utilisation (MFU).

Matrix products count, two operations per multiply-add: the frozen target's forward pass with its whole head; for the
draft, `fc`, k layers and k heads forward, and twice that backward (once for `fc`, whose input needs no gradient); and
attention's two products over the visible pairs of tokens under causality and the window, one document per row. Not
counted: recomputation in the backward pass, the teacher's logits on the draft vocabulary in addition to the whole one,
masked halves of blocks, norms, softmax and the optimizer.
"""

from specexit_jax.models.config import DraftConfig, TargetConfig


def draft_step_flops(
    target: TargetConfig, draft: DraftConfig, rows: int, tokens: int, steps: int, online: bool = True
) -> float:
    """FLOPs of one step on rows [rows, tokens] with `steps` steps of training-time test. online: includes the target's
    pass."""
    whole = rows * tokens
    head = 2 * target.hidden_size * target.vocab_size
    taught = whole * (target.num_layers * _layer(target, target.hidden_size) + head)
    taught += rows * target.num_layers * _attention(target, seen_pairs(tokens))
    fused = whole * 2 * draft.fuse_weights
    own = whole * steps * (_layer(draft, draft.attention_width) + 2 * draft.hidden_size * draft.draft_vocab_size)
    own += whole * steps * 2 * draft.entry_weights
    diagonals = tokens * (steps - 1) / 2  # step i also attends to i own steps at each token
    own += rows * steps * _attention(draft, seen_pairs(tokens, draft.sliding_window) + diagonals)
    return float(online * taught + 2 * fused + 3 * own)


def seen_pairs(tokens: int, window: int = 0) -> int:
    """Visible (query, key) pairs in a row of one document: a token sees itself and those before it, at most `window` in
    all."""
    full = min(window or tokens, tokens)
    return full * (full + 1) // 2 + (tokens - full) * full


def _layer(config: TargetConfig | DraftConfig, width: int) -> int:
    """Weights of projections and feed-forward per token; `width`: of attention's input."""
    heads = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    out = config.num_heads * config.head_dim * config.hidden_size
    return 2 * (width * heads + out + 3 * config.hidden_size * config.intermediate_size)


def _attention(config: TargetConfig | DraftConfig, pairs: float) -> float:
    return 4 * config.num_heads * config.head_dim * pairs
