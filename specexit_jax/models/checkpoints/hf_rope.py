"""RoPE in a config.json: `rope_theta` and `rope_scaling`, or the `rope_parameters` that transformers 5 writes."""

from pathlib import Path

from specexit_jax.models.config import RopeScaling

LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def read_rope(config: dict, path: Path) -> tuple[float, RopeScaling | None]:
    """(theta, llama3 scaling or None). Raises ValueError for any other kind of scaling."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return theta, None
    if kind != "llama3" or any(key not in rope for key in LLAMA3):
        raise ValueError(f"{path} asks for RoPE scaling {rope}; this decoder computes none, or a complete 'llama3'.")
    return theta, RopeScaling(*(rope[key] for key in LLAMA3))


def write_rope(theta: float, scaling: RopeScaling | None) -> dict:
    """The RoPE fields of a config.json in the older form, which every version of transformers reads."""
    if scaling is None:
        return {"rope_theta": theta}
    values = (scaling.factor, scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_max_position)
    return {"rope_theta": theta, "rope_scaling": {"rope_type": "llama3", **dict(zip(LLAMA3, values, strict=True))}}
