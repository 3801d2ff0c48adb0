"""`policy.json`: a calibrated exit policy, its draft, its certificate, and the conditions that it was calibrated under."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specexit_jax.exits.boundaries import KINDS
from specexit_jax.exits.conditions import Conditions, parse_conditions
from specexit_jax.exits.policy import POLICIES, Policy
from specexit_jax.exits.protocols import Terms
from specexit_jax.exits.risk import Certificate
from specexit_jax.exits.score import ScoreNetwork, from_json
from specexit_jax.exits.signals import PAPER, SIGNALS, of_draft
from specexit_jax.storage.identity import same


@dataclasses.dataclass(frozen=True)
class PolicyFile:
    """The content of policy.json (docs/formats.md). Fields are the keys of the file, except `signals`.

    rule: a name of `policy.POLICIES`. smoothing: one of the rule's smoothers. thresholds: a value for each name in `signals`; in
    the file an object by name. budget: thinking tokens from which on every boundary is an exit; null: none. bound: the accuracy
    drop that was allowed on `split`; null for a certified policy. certificate: null for thresholds chosen by grid. problems: the
    number of problems of `split` that the thresholds were chosen or tested on. draft: the digest of the draft's weights
    (`models.checkpoints.content`). made_for: the conditions that it was calibrated under; null in files of older versions.
    settings: further settings of rules that have some; left out of the file where empty. score: the network of the exit score
    (`score.to_json`) where smoothing is `score`; left out of the file where there is none.
    """

    rule: str
    smoothing: str
    boundary_kinds: tuple[str, ...]
    thresholds: tuple[float, ...]
    budget: int | None
    bound: float | None
    certificate: Certificate | None
    split: str
    problems: int
    draft: str
    made_for: Conditions | None = None
    signals: tuple[str, ...] = PAPER
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    score: Mapping[str, Any] | None = None

    def policy(self) -> Policy:
        """The policy that the decoding loop runs."""
        return POLICIES[self.rule].of(self.terms)

    @property
    def terms(self) -> Terms:
        return Terms(self.signals, self.thresholds, self.smoothing, self.budget, self.network, self.settings)

    @property
    def network(self) -> ScoreNetwork | None:
        return None if self.score is None else from_json(self.score, of_draft(self.signals))


def save_policy(path: str | Path, policy: PolicyFile) -> None:
    """Writes policy.json in one atomic step. Raises ValueError on a policy that `load_policy` would refuse."""
    path = Path(path)
    content = dataclasses.asdict(policy)
    if policy.made_for is None:
        del content["made_for"]
    content["thresholds"] = dict(zip(content.pop("signals"), policy.thresholds, strict=True))
    for name in ("settings", "score"):
        if not content[name]:
            del content[name]
    _parse(path, json.loads(json.dumps(content)))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_policy(path: str | Path, draft: str | None = None) -> PolicyFile:
    """Reads policy.json. draft: the digest of the draft in use; None: do not compare.

    Raises FileNotFoundError where there is no file, and ValueError where it is not valid JSON, has unknown or missing keys or
    invalid values, or was calibrated for another draft.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such policy; run launch.calibrate to make one")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): run launch.calibrate again") from error
    policy = _parse(path, content)
    if draft is not None and not same(draft, policy.draft):
        raise ValueError(
            f"{path} was calibrated for another draft ({policy.draft[:19]}…, this one is {draft[:19]}…): "
            "run launch.calibrate for this draft"
        )
    return policy


def _parse(path: Path, content) -> PolicyFile:
    names = [field.name for field in dataclasses.fields(PolicyFile) if field.name != "signals"]
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold a policy (a JSON object with {', '.join(names)})")
    content = {"made_for": None, "settings": {}, "score": None} | content
    unknown, missing = sorted(set(content) - set(names)), [name for name in names if name not in content]
    if unknown or missing:
        raise ValueError(
            f"{path} has unknown keys [{', '.join(unknown)}] and lacks [{', '.join(missing)}]: "
            "run launch.calibrate again"
        )
    thresholds = content["thresholds"]
    if not isinstance(thresholds, dict) or not thresholds or set(thresholds) - set(SIGNALS):
        raise ValueError(f"{path}: thresholds must hold exactly the draft's signals, out of {', '.join(SIGNALS)}")
    held = tuple(name for name in SIGNALS if name in thresholds)
    signals = (*of_draft(held), *(name for name in held if SIGNALS[name].source != "draft"))
    wrong = _first_wrong({**content, **{f"thresholds.{name}": value for name, value in thresholds.items()}})
    if wrong:
        raise ValueError(f"{path}: {wrong}")
    limits = tuple(float(thresholds[name]) for name in signals)
    certificate = _certificate(path, content["certificate"], len(limits))
    kinds = tuple(content["boundary_kinds"])
    try:
        made_for = parse_conditions(content["made_for"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    parsed = {"thresholds": limits, "boundary_kinds": kinds, "certificate": certificate, "made_for": made_for}
    policy = PolicyFile(**content | parsed, signals=signals)
    try:
        wrong = POLICIES[policy.rule].wrong_in(policy.terms)
    except ValueError as error:  # of the score network
        wrong = error
    if wrong:
        raise ValueError(f"{path}: {wrong}")
    return policy


def _certificate(path: Path, content, limits: int) -> Certificate | None:
    if content is None:
        return None
    # Not in older files.
    later = {field.name: None for field in dataclasses.fields(Certificate) if field.default is None}
    names = [field.name for field in dataclasses.fields(Certificate)]
    if not isinstance(content, dict) or {*content, *later} != set(names):
        raise ValueError(f"{path}: a certificate holds exactly {', '.join(names)}: run launch.calibrate again")
    content = later | content
    if content["tasks"] is not None and not (
        isinstance(content["tasks"], dict) and all(map(_is_count, content["tasks"].values()))
    ):
        raise ValueError(f"{path}: the certificate's tasks are {content['tasks']!r}, expected null or a count of each")
    steps, step = content["steps"], content["step"]
    sound = isinstance(steps, list) and all(
        isinstance(x, list) and len(x) == limits and all(map(_is_number, x)) for x in steps
    )
    if not sound or not isinstance(step, int) or not 0 <= step < len(steps):
        raise ValueError(
            f"{path}: the certificate's steps must be lists of {limits} thresholds each, and step an index into them: run "
            "launch.calibrate again"
        )
    return Certificate(**{**content, "steps": tuple(tuple(float(x) for x in limits) for limits in steps)})


def _first_wrong(content: dict) -> str | None:
    """A sentence about the first invalid value; None if all are valid."""
    kinds = content["boundary_kinds"]
    if content["rule"] not in POLICIES:
        return f"rule is {content['rule']!r}, expected one of {', '.join(POLICIES)}"
    names = POLICIES[content["rule"]].smoothings()
    if content["smoothing"] not in names:
        return f"smoothing is {content['smoothing']!r}, expected one of {', '.join(names)} for this rule"
    if not isinstance(kinds, list) or not kinds or any(kind not in KINDS for kind in kinds):
        return f"boundary_kinds is {kinds!r}, expected a list out of {', '.join(KINDS)}"
    for name in (f"thresholds.{signal}" for signal in content["thresholds"]):
        if not _is_number(content[name]):
            return f"{name} is {content[name]!r}, expected a number"
    bound = content["bound"]
    if bound is not None and not (_is_number(bound) and 0 <= bound <= 1):
        return f"bound is {bound!r}, expected null or a number from 0 to 1"
    for name in ("problems", "budget"):
        if not _is_count(content[name]) and (name, content[name]) != ("budget", None):
            return f"{name} is {content[name]!r}, expected a count"
    if not isinstance(content["settings"], dict):
        return f"settings is {content['settings']!r}, expected an object"
    return next((f"{name} is {content[name]!r}, expected text" for name in ("split", "draft")
                 if not isinstance(content[name], str)), None)  # fmt: skip


def _is_count(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
