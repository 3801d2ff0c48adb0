"""Writes the output of an evaluation: results.json, records.jsonl, report.md and its figures, report.html."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from specexit_jax.evaluation.records import Record, write_atomically, write_json, write_records
from specexit_jax.evaluation.report.markdown import Picture, report_markdown
from specexit_jax.evaluation.report.page import report_page
from specexit_jax.evaluation.report.pictures import CAPTIONS, draw
from specexit_jax.evaluation.report.shown import Shown
from specexit_jax.evaluation.report.style import save_figure
from specexit_jax.evaluation.results import build_results, compare, histogram, shares

_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "reasoning-gym", "numpy")
_BASELINE = "eagle3"
PROVENANCE = ("device", "git_revision", "versions")


def provenance() -> dict:
    """device, git_revision and versions, as results.json carries them."""
    root = Path(__file__).resolve().parents[3]
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        revision = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        revision = "unknown"
    device = jax.devices()[0]
    kind = platform.processor() or platform.machine() if device.platform == "cpu" else device.device_kind
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "device": f"{device.platform} ({kind})",
        "git_revision": revision,
        "versions": {"python": platform.python_version(), **versions},
    }


def record_sections(records: Sequence[Record]) -> dict[str, Any]:
    """The sections of results.json beside `methods` that records alone give."""
    names = {record.method for record in records}
    comparisons = (
        [compare(records, name, _BASELINE) for name in sorted(names - {_BASELINE})] if _BASELINE in names else []
    )
    saved = [shares(records, name) for name in ("specexit", "first_answer") if name in names and _BASELINE in names]
    decoded = {name: histogram([r for r in records if r.method == name]) for name in sorted(names)}
    acceptance = {name: counts.tolist() for name, counts in decoded.items() if len(counts) > 1}
    return {"comparisons": comparisons, "shares": saved, "acceptance": acceptance}


def publish(
    workdir: Path,
    records: Sequence[Record],
    shown: Shown,
    origin: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> dict:
    """Writes records.jsonl, results.json, report.md, report/*.png and report.html; returns the results.

    origin: PROVENANCE of the run, default this one's; notes: sentences for the report beside those of the results.
    """
    extra = record_sections(records) | dict(shown.sections)
    results = build_results(records, **(origin or provenance()), extra=extra)
    pictures, images = {}, {}
    for name, figure in draw(results, shown.views):
        picture = pictures[name] = Picture(CAPTIONS[name], f"report/{name}.png")
        save_figure(workdir / picture.path, figure)
        images[picture.path] = (workdir / picture.path).read_bytes()
    text = report_markdown(results, pictures=pictures, worst=shown.worst, notes=notes)
    write_records(workdir / "records.jsonl", records)
    write_atomically(workdir / "report.md", text)
    write_atomically(workdir / "report.html", report_page(text, images))
    write_json(workdir / "results.json", results)
    return results
