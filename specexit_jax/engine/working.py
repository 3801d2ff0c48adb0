"""What a device needs beside weights and rows while it decodes."""

import jax.numpy as jnp

from specexit_jax.models.config import TargetConfig


def decode_working(target: TargetConfig, rows: int, drafted: int, prompt: int, tensor: int = 1) -> int:
    """Bytes of what the loop's programs hold for a while. rows: of the device; prompt: tokens that one pass of prefill reads.

    The larger of: a layer's feed-forward over the prompt (gate, up and what they make, twice); and float32 logits, noise and
    what is left of both, of every verified token. Fitted to programs compiled for the H100 (docs/speed.md).
    """
    size = jnp.dtype(target.dtype).itemsize
    absorbed = 6 * prompt * max(target.intermediate_size, target.hidden_size) * size // tensor
    verified = 3 * 4 * rows * (drafted + 1) * target.vocab_size // tensor
    return max(absorbed, verified)
