"""`frontier.json`: what other risks than the policy's own cost, and the thresholds that are certified for each."""

import dataclasses
import json
from pathlib import Path

from specexit_jax.exits.policy_file import PolicyFile

FRONTIER = "frontier.json"  # beside policy.json


@dataclasses.dataclass(frozen=True)
class CertifiedRisk:
    """A policy as it is certified for one risk. tokens_ratio: the mean tokens of its traces on the certified split, divided by
    those without exits; None where no file tells."""

    policy: PolicyFile
    tokens_ratio: float | None

    @property
    def epsilon(self) -> float:
        return self.policy.certificate.epsilon


def certified_risks(policy: PolicyFile, path: Path) -> tuple[CertifiedRisk, ...]:
    """The risks that a policy can be used at, ascending: its own, and those of the frontier.json at `path`, if it is there.

    Rows that no thresholds were certified for are left out, and so are those of another split, smoothing, budget or exit score,
    which are other policies. Each row holds by itself with probability 1 - delta. () for a policy without a certificate, and for
    one whose thresholds are not the certified ones. Raises ValueError on a file that is no frontier.
    """
    if policy.certificate is None or policy.certificate.thresholds != policy.thresholds:
        return ()
    found = {policy.certificate.epsilon: CertifiedRisk(policy, None)}
    if path.is_file():
        for row in _rows(policy, path):
            if row.epsilon not in found or row.policy.thresholds == policy.thresholds:
                found[row.epsilon] = row
    return tuple(found[epsilon] for epsilon in sorted(found))


def at_most(risks: tuple[CertifiedRisk, ...], epsilon: float) -> CertifiedRisk:
    """The largest of the risks that is not above epsilon. Raises ValueError, one sentence, where there is none."""
    allowed = [risk for risk in risks if risk.epsilon <= epsilon]
    if allowed:
        return allowed[-1]
    if not risks:
        raise ValueError(f"epsilon is {epsilon:g}, but this exit policy is not certified for any risk: leave it out.")
    raise ValueError(
        f"epsilon is {epsilon:g}, but the least risk that this exit policy is certified for is {risks[0].epsilon:g}: ask for at "
        "least that, or for no exit."
    )


def _rows(policy: PolicyFile, path: Path) -> list[CertifiedRisk]:
    try:
        content = json.loads(path.read_bytes())
        if content["split"] != policy.certificate.split or content.get("score", policy.score) != policy.score:
            return []
        rows = [row for row in content["rows"] if "refused" not in row]
        kept = [row for row in rows if (row["smoothing"], row["budget"]) == (policy.smoothing, policy.budget)]
        return [_row(policy, row) for row in kept]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a frontier ({error}): run launch.calibrate again, or remove it") from error


def _row(policy: PolicyFile, row: dict) -> CertifiedRisk:
    thresholds = tuple(float(limit) for limit in row["thresholds"])
    if len(thresholds) != len(policy.signals):
        raise ValueError(f"{len(thresholds)} thresholds for {len(policy.signals)} signals")
    told = {
        name: row[name] for name in ("epsilon", "delta", "harmed", "problems", "traces", "test", "risk", "risk_upper")
    }
    # The walk is that of another certificate: of this one the file has the end alone, and no p-value.
    certificate = dataclasses.replace(policy.certificate, **told, steps=(thresholds,), step=0, p_value=float("nan"))
    own = dataclasses.replace(policy, thresholds=thresholds, certificate=certificate, problems=row["problems"])
    return CertifiedRisk(own, float(row["tokens_ratio"]))
