"""Which platform a program is traced for: that of the default device, unless it is compiled ahead for another."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

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
