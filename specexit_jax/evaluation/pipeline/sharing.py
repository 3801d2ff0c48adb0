"""An evaluation's decoding by several processes: each writes its share into files of its own, and the last makes the report."""

from collections.abc import Sequence
from pathlib import Path

from specexit_jax.annotation.annotate import annotate
from specexit_jax.annotation.kinds import kinds_to_annotate
from specexit_jax.annotation.rollout import name_of
from specexit_jax.data.splits import Problem
from specexit_jax.engine.session import Session
from specexit_jax.evaluation.pipeline import harness
from specexit_jax.exits.policy_file import PolicyFile
from specexit_jax.models.draft_layer import DraftBundle
from specexit_jax.storage.shards import ids_of, read_shards, shard_files

WITHOUT_EXIT = ("eagle3", "think", "nothink")


def decoded_methods(setting: harness.Setting) -> list[str]:
    """The methods whose every trace is decoded: `eagle3`, on whose traces exits are replayed, and others that were asked for."""
    return [name for name in WITHOUT_EXIT if name == "eagle3" or name in setting.methods]


def decode_share(
    session: Session, problems: Sequence[Problem], file: PolicyFile | None, setting: harness.Setting, workdir: Path
) -> None:
    """Decodes the shard's problems and seeds by every method and, for the policy's exits, annotates them and reads their
    signals. Goes on where a killed run stopped, whatever number of processes that had. Raises as `harness.require_alike`.
    """
    folder = workdir / setting.split
    harness.require_alike(session, setting, folder, None if file is None else file.boundary_kinds)
    for name in decoded_methods(setting):
        harness.decode(session, problems, name, setting, folder)
        if name == "eagle3" and file is not None:  # before the others, so that a killed run has whole parts
            _annotate_share(session, set(setting.shard.own(_names(problems, setting))), file, setting, folder)


def missing(
    problems: Sequence[Problem], file: PolicyFile | None, setting: harness.Setting, workdir: Path
) -> dict[str, int]:
    """How many rows of each stem no process has written yet; without those of which nothing is missing."""
    folder, wanted = workdir / setting.split, set(_names(problems, setting))
    stems = [harness.stem_of(name) for name in decoded_methods(setting)] + ["labels"] * (file is not None)
    left = {stem: len(wanted - ids_of(folder, stem)) for stem in stems}
    return {stem: count for stem, count in left.items() if count}


def _names(problems: Sequence[Problem], setting: harness.Setting) -> list[str]:
    """The ids of the traces, in the order in which rollouts share them."""
    return [name_of(problem, sample) for problem in problems for sample in range(setting.seeds)]


def _annotate_share(
    session: Session, names: set[str], file: PolicyFile, setting: harness.Setting, folder: Path
) -> None:
    kinds = kinds_to_annotate(folder, file.boundary_kinds)
    annotate(session, folder, kinds, setting.forcing, setting.shard, setting.target, names=names, grader=setting.grader)
    if shard_files(folder, "traces"):
        traces = read_shards(folder, "traces").brief()
        own = traces.of(name for name in traces.ids if name in names)
        draft = DraftBundle(session.draft, session.params.draft, session.params.d2t)
        harness.extract_share(session, own, draft, folder, setting.shard)
