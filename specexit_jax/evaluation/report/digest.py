"""The few numbers of a run that the pages show, with the command, device and revision that they come from.

A digest is a small JSON file, docs/results/NAME.json: {kind, command, device, revision, …}. Its kinds:
  evaluation  of results.json: problems, timed, temperature; methods: name -> the keys of METHOD_KEYS; and, where the run has
              them, specexit_eagle3 (of `results.compare`), share_of_ceiling, risk, signals
  frontier    of frontier.json: rows of {epsilon, tokens_ratio, harmed, problems, risk_upper} or {epsilon, refused}
  ablations   of ablations.json: rows of {table, arm, tokens_ratio, accuracy_difference, harmed, mended} or {table, arm, refused}
  learning_curve  of learning_curve.json: rows of {traces, boundaries, auc, saved}
  table       columns and rows of text: what a person measured and wrote down
Numbers keep the keys and units of the file that they are taken from.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from specexit_jax.evaluation.records import write_json
from specexit_jax.evaluation.report.publish import provenance

METHOD_KEYS = ("accuracy", "accuracy_ci95", "tokens_mean", "latency_s_mean", "tau_mean", "exit_rate")
_COMPARED = ("accuracy_difference", "tokens_ratio", "speedup", "harmed", "mended")
_RISK = ("risk", "risk_ci95", "harmed", "problems")
_SIGNALS = ("auc", "correlation_with_correct", "correlation_of_agreement_with_correct")
_ROW_KEYS = {
    "frontier": ("epsilon", "tokens_ratio", "harmed", "problems", "risk_upper", "refused"),
    "ablations": ("table", "arm", "tokens_ratio", "accuracy_difference", "harmed", "mended", "refused"),
    "learning_curve": ("traces", "boundaries", "auc", "saved"),
}
_DIGITS = 5  # significant ones, more than any table shows


def of_results(results: Mapping[str, Any]) -> dict[str, Any]:
    """The `evaluation` digest of results.json, provenance of the run included."""
    overall = {name: method["overall"] for name, method in results["methods"].items()}
    found = {
        "device": results["device"],
        "revision": results["git_revision"],
        "problems": max(own["n"] for own in overall.values()),
        "timed": max(own["latency_n"] for own in overall.values()),
        "methods": {name: _some(own, METHOD_KEYS) for name, own in overall.items()},
    }
    pair = ("specexit", "eagle3")
    for row in results.get("comparisons", ()):
        if (row["method"], row["baseline"]) == pair:
            found["specexit_eagle3"] = _some(row, _COMPARED)
    for row in results.get("shares", ()):
        if row["method"] == "specexit" and row["share_of_ceiling"]:
            found["share_of_ceiling"] = row["share_of_ceiling"]["value"]
    parts = {"risk": _RISK, "signals": _SIGNALS}
    return found | {name: _some(results[name], keys) for name, keys in parts.items() if name in results}


def of_rows(kind: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The `frontier`, `ablations` or `learning_curve` digest of a run that has just been made on this machine."""
    made = provenance()
    own = [{key: row[key] for key in _ROW_KEYS[kind] if key in row} for row in rows]
    return {"device": made["device"], "revision": made["git_revision"], "rows": own}


def save_digest(path: str | Path, kind: str, command: str, digest: Mapping[str, Any]) -> None:
    """Writes the digest whole or not at all; numbers rounded to more digits than are shown."""
    write_json(Path(path), {"kind": kind, "command": command} | _rounded(digest))


def _some(content: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: content[key] for key in keys}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value
