"""What a program is traced for: the platform (the default device's, unless compiled ahead), and the mesh in force."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax
from jax.sharding import PartitionSpec

_CHOSEN: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


def on_cpu() -> bool:
    """Whether to trace what pays on XLA's CPU backend alone."""
    return (_CHOSEN.get() or jax.default_backend()) == "cpu"


@contextlib.contextmanager
def tracing_for(platform: str) -> Iterator[None]:
    """Traces for `platform` ("tpu", "gpu") inside, whatever this process runs on. What was traced before is kept."""
    token = _CHOSEN.set(platform)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def rows_apart(x: jax.Array) -> jax.Array:
    """Activations [B, ...] under a mesh (jax.set_mesh): rows over (data, fsdp), the rest whole.

    Weights are split over fsdp along their input axis. Left to itself the compiler may then gather the rows instead of
    the weights, and every device holds the activations of all.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(("data", "fsdp")))
