"""Loads what lm-eval's --model_args name: target, draft, policy, method."""

from pathlib import Path
from typing import Any

from specexit_jax.engine.choice import choose
from specexit_jax.engine.methods import DRAFT_TOKENS, Method, make_method, policy_file
from specexit_jax.engine.session import EMBEDDED, Session, load_session
from specexit_jax.notes import note
from specexit_jax.parallel.sharding import make_mesh


def opened(
    *,
    target: str = str(EMBEDDED / "target"),
    draft: str | None = None,
    policy: str | None = None,
    strict_policy: bool = False,
    method: str | None = None,
    draft_tokens: int = DRAFT_TOKENS,
    exit_rule: str | None = None,
    smoother: str | None = None,
    dtype: str = "float32",
    data: int = 1,
    fsdp: int = 1,
    tensor: int = 1,
    batch_size: int | str = 1,
    attention: str = "xla",
    **settings: Any,
) -> tuple[Session, Method, dict[str, Any]]:
    """The session, the method, and the settings that are left for the model class, batch_size among them.

    Folders or names on the hub; the bundled model's own draft where it is the target. method, policy: where they are not given,
    as `choice.choose` has it, which one line tells. strict_policy: see `SpecExitLM`.
    data, fsdp, tensor: the mesh, one of them may be -1. Raises ValueError or OSError.
    """
    bundled = Path(target).resolve() == (EMBEDDED / "target").resolve()
    draft = draft or (str(EMBEDDED / "draft") if bundled else None)
    if not str(batch_size).isdecimal():
        raise ValueError(f"batch_size is a whole number of rows decoded together, not {batch_size!r}.")
    if unknown := set(settings) - {"seed", "temperature", "max_gen_toks", "keep_thinking"}:
        raise ValueError(f"There is no model argument {min(unknown)!r}.")
    mesh = make_mesh(data, fsdp, tensor) if (data, fsdp, tensor) != (1, 1, 1) else None
    session = load_session(target, draft, dtype, mesh if mesh is None or mesh.size > 1 else None, None, attention)
    choice = choose(session, draft, method, policy, exit_rule, smoother)
    note(choice.line)
    file = policy_file(session, choice.path, exit_rule, smoother) if choice.path else None
    chosen = make_method(session, choice.name, choice.policy, choice.kinds, draft_tokens)
    covering = {"policy_file": file, "strict_policy": strict_policy}
    return session, chosen, {"batch_size": int(batch_size), **covering, **settings}
