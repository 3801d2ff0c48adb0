"""Checks before a stage works: rows of earlier stages, a draft, a policy, flags that fit together."""

from collections.abc import Sequence
from pathlib import Path

import ml_collections
from absl import flags

from launch import door
from specexit_jax.annotation.kinds import require_every_boundary
from specexit_jax.engine.session import Session
from specexit_jax.exits.boundaries import KINDS
from specexit_jax.exits.score import SCORE
from specexit_jax.exits.signals import SIGNALS
from specexit_jax.exits.smoothers import SMOOTHERS
from specexit_jax.exits.trace_statistics import PARTS
from specexit_jax.storage.shards import has_rows, ids_of

_WRITERS = {"traces": "launch.rollout", "labels": "launch.annotate"}


def rows(folder: Path, stem: str) -> None:
    """Raises FileNotFoundError if a split has no traces or labels yet, with the stage that writes them."""
    if not has_rows(folder, stem):
        raise FileNotFoundError(
            f"{folder / stem}.jsonl does not exist, or holds no row: run the stage that writes it first "
            f"({_WRITERS[stem]} --splits={folder.name})."
        )


def annotated(folder: Path, whole: bool = True) -> None:
    """Raises FileNotFoundError or ValueError if a split is not completely rolled out and annotated; whole: at every boundary."""
    rows(folder, "traces")
    rows(folder, "labels")
    traces = ids_of(folder, "traces")
    missing = traces - ids_of(folder, "labels")
    if missing:
        raise ValueError(
            f"{folder}: {len(missing)} of {len(traces)} traces have no label ({min(missing)}): annotate them first "
            f"(launch.annotate --splits={folder.name})."
        )
    if whole:
        require_every_boundary(folder)


def draft_of(config: ml_collections.ConfigDict, needed: bool = True, workdir: Path | None = None) -> str | None:
    """The draft's folder: WORKDIR/draft_model if training wrote it, else the config's; None if there is none. workdir: default
    --workdir.

    Raises FileNotFoundError where one is needed.
    """
    own = (workdir or Path(flags.FLAGS.workdir)) / "draft_model"
    if own.is_dir():
        return str(own)
    if not config.draft and needed:
        raise FileNotFoundError(
            f"There is no draft: {own} does not exist and config.draft is empty; run launch.train first."
        )
    return config.draft or None


def policy_of(config: ml_collections.ConfigDict, needed: bool = True, workdir: Path | None = None) -> Path | None:
    """WORKDIR/policy.json if calibration wrote it, else the config's; None if there is none. workdir: default --workdir.

    Raises FileNotFoundError where one is needed.
    """
    own = (workdir or Path(flags.FLAGS.workdir)) / "policy.json"
    if own.is_file():
        return own
    if not config.policy and needed:
        raise FileNotFoundError(
            f"There is no exit policy: {own} does not exist and config.policy is empty; run launch.calibrate first."
        )
    return Path(config.policy) if config.policy else None


def signals(session: Session) -> None:
    """Refuses a draft without exit signals, which the stage reads."""
    if session.draft is None or session.draft.signals == "none":
        raise ValueError(
            "This draft has no exit signals, which this stage reads: train one with --config.train.signals=draft."
        )


def known(key: str, names: Sequence[str], all_names: Sequence[str]) -> None:
    """Refuses an empty list in a config, and a name that is not among `all_names`."""
    if not names:
        raise ValueError(f"config.{key} is empty: choose among {', '.join(all_names)}.")
    for name in names:
        door.known(f"config.{key}", name, all_names)


def names_of(config: ml_collections.ConfigDict) -> None:
    """Refuses unknown kinds of boundaries, signals, smoothers and parts of the exit score."""
    known("annotate.kinds", config.annotate.kinds, KINDS)
    known("calibrate.signals", config.calibrate.signals, SIGNALS)
    known("calibrate.smoothers", config.calibrate.smoothers, (*SMOOTHERS, SCORE))
    if SCORE in config.calibrate.smoothers:
        for part in config.calibrate.score.get("without", ()):
            door.known("config.calibrate.score.without", part, PARTS)


def chance(flag: str, value: float) -> None:
    """Refuses a value outside the interval (0, 1)."""
    if not 0 < value < 1:
        raise ValueError(f"--{flag} lies between 0 and 1, but it is {value:g}.")
