"""launch.export: writes the draft's policy with the draft."""

from pathlib import Path

from specexit_jax.engine.binding import carried, policies_of
from specexit_jax.exits.policy_file import load_policy, save_policy
from specexit_jax.models.config import DraftConfig


def chosen(named: str | None, folder: Path, config: DraftConfig) -> tuple[Path | None, str]:
    """The policy to write, or a sentence on why there is none. Raises ValueError if the policy named is for another
    draft."""
    if named is not None:
        carried(Path(named), folder, config, folder)
        return Path(named), ""
    reason = "no policy.json in the draft's folder or beside it: none goes along"
    for path in policies_of(folder):
        try:
            carried(path, folder, config, folder)
        except ValueError as error:
            reason = f"no policy goes along: {error}"
        else:
            return path, ""
    return None, reason


def written(policy: Path, folder: Path, config: DraftConfig, out: Path, dtype: str) -> str:
    """Writes OUT/policy.json; returns a sentence about it."""
    before, file = load_policy(policy), carried(policy, folder, config, out)
    save_policy(out / "policy.json", file)
    again = carried(policy, folder, config, folder)  # the draft before the export, in the present form of its digest
    if file.draft == again.draft:
        return f"{out / 'policy.json'}: {policy}, for the same weights"
    shown = "certificate was shown" if before.certificate else "thresholds were chosen"
    return f"{out / 'policy.json'}: {policy}, rewritten for the weights in {dtype}; its {shown} with those before"
