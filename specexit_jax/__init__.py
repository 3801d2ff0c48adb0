"""SpecExit in JAX: reasoning models that stop thinking when they are done.

from specexit_jax import SpecExit
model = SpecExit.load()                     # the bundled model, draft and certified policy
answer = model.generate("What is 3 + 4?")   # answer.text, .thinking, .exit, .usage

`import specexit_jax` itself is cheap: what it names is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specexit_jax.api.answer import Answer, Certificate, Exit, ExitPolicy, LogProbs, Piece, Plan, Usage
    from specexit_jax.api.model import SpecExit

__version__ = "0.1.0"
__all__ = ["Answer", "Certificate", "Exit", "ExitPolicy", "LogProbs", "Piece", "Plan", "SpecExit", "Usage"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"specexit_jax has no {name!r}; its public names are {', '.join(__all__)}.")
    room = "model" if name == "SpecExit" else "answer"
    return getattr(importlib.import_module(f"specexit_jax.api.{room}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
