"""What a program is traced for: the platform (the default device's, unless compiled ahead), and the mesh in force."""

import contextlib
import contextvars
import math
from collections.abc import Iterator

import jax
from jax.sharding import PartitionSpec

_CHOSEN: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)
_INTERPRETED: contextvars.ContextVar[bool] = contextvars.ContextVar("interpreted", default=False)


def on_cpu() -> bool:
    """Whether to trace what pays on XLA's CPU backend alone."""
    return platform() == "cpu"


def keys_like_values() -> bool:
    """Whether a cache's keys lie like its values, [B, K, S, H]: on GPUs, whose products read both orders equally fast.

    Rows of H numbers are then written whole, and kernels that want positions before H read the cache where it lies. Elsewhere
    positions are last (`models.cache.Cache`).
    """
    return platform() == "gpu"


def platform() -> str:
    """What is traced for: "cpu", "tpu", "gpu"."""
    return _CHOSEN.get() or jax.default_backend()


def interpreted() -> bool:
    """Whether Pallas kernels are interpreted: on CPU, and where a GPU's or TPU's form is traced to be run on one."""
    return on_cpu() or _INTERPRETED.get()


@contextlib.contextmanager
def tracing_for(platform: str, interpreted: bool = False) -> Iterator[None]:
    """Traces for `platform` ("tpu", "gpu") inside, whatever this process runs on. What was traced before is kept.

    interpreted: the program is run on this CPU.
    """
    tokens = _CHOSEN.set(platform), _INTERPRETED.set(interpreted)
    try:
        yield
    finally:
        _CHOSEN.reset(tokens[0])
        _INTERPRETED.reset(tokens[1])


def on_mesh(mesh: jax.sharding.Mesh | None) -> contextlib.AbstractContextManager:
    """The mesh in force inside; None: none."""
    return jax.set_mesh(mesh) if mesh else contextlib.nullcontext()


def rows_apart(x: jax.Array) -> jax.Array:
    """Activations [B, ...] under a mesh (jax.set_mesh): rows over (data, fsdp), the rest whole.

    Weights are split over fsdp along their input axis. Left to itself the compiler may then gather the rows instead of
    the weights, and every device holds the activations of all.
    """
    return _constrained(x, ("data", "fsdp"))


def heads_apart(x: jax.Array) -> jax.Array:
    """Keys or values of a cache [B, K, ...] under a mesh: rows over (data, fsdp), heads over tensor, positions whole."""
    return _constrained(x, ("data", "fsdp"), ("tensor",))


def axes_apart(sizes: tuple[int, ...], *axes: tuple[str, ...]) -> tuple[tuple[str, ...] | None, ...]:
    """For each size the axes of the mesh in force that it is split over; None where they do not divide it, or where
    there is no mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return (None,) * len(axes)
    parts = [math.prod(mesh.shape[name] for name in names) for names in axes]
    return tuple(names if size % part == 0 else None for names, part, size in zip(axes, parts, sizes, strict=False))


def _constrained(x: jax.Array, *axes: tuple[str, ...]) -> jax.Array:
    """Leading axes of x over these axes of the mesh in force, each where it divides; as it is where there is no mesh."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*axes_apart(x.shape, *axes)))
