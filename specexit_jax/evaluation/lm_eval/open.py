"""What lm-eval's --model_args name, loaded: target, draft, policy, method."""

from typing import Any

from specexit_jax.methods import DRAFT_TOKENS, Method, make_method, policy_file, read_policy
from specexit_jax.session import EMBEDDED, Session, load_session
from specexit_jax.sharding import make_mesh


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
    **settings: Any,
) -> tuple[Session, Method, dict[str, Any]]:
    """The session, the method, and the settings that are left for the model class, batch_size among them.

    Folders or names on the hub; the bundled model's own draft and policy where it is the target. method: default specexit,
    think without a draft. strict_policy: see `SpecExitLM`.
    data, fsdp, tensor: the mesh, one of them may be -1. Raises ValueError or OSError.
    """
    bundled = target == str(EMBEDDED / "target")
    draft = draft or (str(EMBEDDED / "draft") if bundled else None)
    policy = policy or (str(EMBEDDED / "policy.json") if bundled else None)
    name = method or ("specexit" if draft else "think")
    if not str(batch_size).isdecimal():
        raise ValueError(f"batch_size is a whole number of rows decoded together, not {batch_size!r}.")
    if unknown := set(settings) - {"seed", "temperature", "max_gen_toks", "keep_thinking"}:
        raise ValueError(f"There is no model argument {min(unknown)!r}.")
    mesh = make_mesh(data, fsdp, tensor) if (data, fsdp, tensor) != (1, 1, 1) else None
    session = load_session(target, draft, dtype, mesh if mesh is None or mesh.size > 1 else None)
    exits, kinds, file = None, ("paragraph",), None
    if name in ("specexit", "probe") and (policy or exit_rule == "released"):
        exits, kinds = read_policy(session, policy, exit_rule, smoother)
        file = policy_file(session, policy, exit_rule, smoother)
    chosen = make_method(session, name, exits, kinds, draft_tokens)
    covering = {"policy_file": file, "strict_policy": strict_policy}
    return session, chosen, {"batch_size": int(batch_size), **covering, **settings}
