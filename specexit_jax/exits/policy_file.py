"""`policy.json`: a calibrated exit rule, and the draft it was calibrated for."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import jax.numpy as jnp

from specexit_jax.exits.boundaries import KINDS
from specexit_jax.exits.policy import Policy, Threshold
from specexit_jax.exits.released import SCORES, released
from specexit_jax.exits.signals import SIGNALS
from specexit_jax.exits.smoothers import SMOOTHERS, smoother_named

RULES = ("default", "released")


@dataclasses.dataclass(frozen=True)
class PolicyFile:
    """What policy.json holds, key for key.

    smoothing: a name of `smoothers.SMOOTHERS`; thresholds: confidence at least, progress at least, remain (tokens) at
    most; bound: the accuracy drop allowed on `split`; epsilon, delta: of the certificate, null where thresholds were
    chosen by grid; problems: how many were calibrated on; draft: digest of the draft (see `digest`).
    """

    rule: str
    smoothing: str
    boundary_kinds: tuple[str, ...]
    thresholds: tuple[float, float, float]
    bound: float | None
    epsilon: float | None
    delta: float | None
    split: str
    problems: int
    draft: str

    def policy(self) -> Policy:
        if self.rule == "released":
            return dataclasses.replace(released(self.smoothing), thresholds=self._limits())
        return Threshold(self._limits(), smoother_named(self.smoothing))

    def _limits(self):
        return jnp.asarray(self.thresholds, jnp.float32)


def digest(path: str | Path) -> str:
    """SHA-256 of a weights file, as policy.json stores it to know its draft again."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file; a policy is tied to its draft's weights")
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def save_policy(path: str | Path, policy: PolicyFile) -> None:
    """Writes policy.json whole or not at all. Raises ValueError on a policy that load_policy would refuse."""
    path = Path(path)
    content = dataclasses.asdict(policy)
    content["thresholds"] = dict(zip(SIGNALS, policy.thresholds, strict=True))
    _parse(path, json.loads(json.dumps(content)))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_policy(path: str | Path, draft: str | None = None) -> PolicyFile:
    """Reads policy.json; `draft` is the digest of the draft in use (None: do not compare).

    Raises FileNotFoundError, or ValueError with one sentence on corrupt JSON, unknown, missing or senseless keys, and
    a policy calibrated for another draft.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such policy; run launch.calibrate to make one")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): run launch.calibrate again") from error
    policy = _parse(path, content)
    if draft is not None and policy.draft != draft:
        raise ValueError(
            f"{path} was calibrated for another draft ({policy.draft[:19]}…, this one is {draft[:19]}…): "
            "run launch.calibrate for this draft"
        )
    return policy


def _parse(path: Path, content) -> PolicyFile:
    names = [field.name for field in dataclasses.fields(PolicyFile)]
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold a policy (a JSON object with {', '.join(names)})")
    unknown, missing = sorted(set(content) - set(names)), [name for name in names if name not in content]
    if unknown or missing:
        raise ValueError(
            f"{path} has unknown keys [{', '.join(unknown)}] and lacks [{', '.join(missing)}]: "
            "run launch.calibrate again"
        )
    thresholds = content["thresholds"]
    if not isinstance(thresholds, dict) or set(thresholds) != set(SIGNALS):
        raise ValueError(f"{path}: thresholds must hold exactly {', '.join(SIGNALS)}")
    wrong = _first_wrong({**content, **{f"thresholds.{name}": value for name, value in thresholds.items()}})
    if wrong:
        raise ValueError(f"{path}: {wrong}")
    limits = tuple(float(thresholds[name]) for name in SIGNALS)
    return PolicyFile(**{**content, "thresholds": limits, "boundary_kinds": tuple(content["boundary_kinds"])})


def _first_wrong(content: dict) -> str | None:
    """One sentence on the first senseless value, None if all are sound."""
    names = SCORES if content["rule"] == "released" else tuple(SMOOTHERS)
    kinds = content["boundary_kinds"]
    if content["rule"] not in RULES:
        return f"rule is {content['rule']!r}, expected one of {', '.join(RULES)}"
    if content["smoothing"] not in names:
        return f"smoothing is {content['smoothing']!r}, expected one of {', '.join(names)} for this rule"
    if not isinstance(kinds, list) or not kinds or any(kind not in KINDS for kind in kinds):
        return f"boundary_kinds is {kinds!r}, expected a list out of {', '.join(KINDS)}"
    for name in (f"thresholds.{signal}" for signal in SIGNALS):
        if not _is_number(content[name]):
            return f"{name} is {content[name]!r}, expected a number"
    for name in ("bound", "epsilon", "delta"):
        if content[name] is not None and not (_is_number(content[name]) and 0 <= content[name] <= 1):
            return f"{name} is {content[name]!r}, expected null or a number from 0 to 1"
    if not isinstance(content["problems"], int) or isinstance(content["problems"], bool) or content["problems"] < 0:
        return f"problems is {content['problems']!r}, expected a count"
    return next((f"{name} is {content[name]!r}, expected text" for name in ("split", "draft")
                 if not isinstance(content[name], str)), None)  # fmt: skip


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
