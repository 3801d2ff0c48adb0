"""An evaluation from problems to records: decode, annotate and replay.

Files in WORKDIR/SPLIT are appended to or written once, so a killed run continues where it stopped.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from specexit_jax.annotation.annotate import annotate
from specexit_jax.annotation.annotate import require_alike as require_alike_labels
from specexit_jax.annotation.features import Extracted, signals_along
from specexit_jax.annotation.forcing import Forcing
from specexit_jax.annotation.joined import join_labels
from specexit_jax.annotation.kinds import kinds_to_annotate, labels_at
from specexit_jax.annotation.replay import replay_each
from specexit_jax.annotation.rollout import Rollout, name_of, report_of, roll_out
from specexit_jax.annotation.signal_file import StoredSignals, load_signals, write_signals
from specexit_jax.data.grading.grader import Grader
from specexit_jax.data.splits import Problem
from specexit_jax.engine.methods import DECODED, Method, make_method, policy_of
from specexit_jax.engine.placement import Auto
from specexit_jax.engine.session import Session
from specexit_jax.evaluation.records import Record, record_of_replay
from specexit_jax.exits.policy import Policy
from specexit_jax.storage.identity import same
from specexit_jax.storage.rows import brief_rows, ids_in, taken
from specexit_jax.storage.shards import WHOLE, Shard, read_shards, require_settings, shard_files

BOUNDS = ("oracle", "ceiling")
REPLAYED = ("first_answer", "deer", "deer_eagle3", "specexit", "probe")


@dataclasses.dataclass(frozen=True)
class Setting:
    """The settings of an evaluation beside the models. target, source: see `annotation.rollout.Rollout`; seeds: their
    number, from `seed` on; loop_parts: whether timed requests are also reported by part and by position; grader: judges the
    answers, None: this process; shard: this process's share of what is decoded."""

    split: str
    methods: tuple[str, ...]
    seed: int
    batch_size: int | Auto
    forcing: Forcing
    draft_tokens: int
    latency_per_task: int
    latency_rounds: int
    loop_parts: bool
    target: str = ""
    source: str = ""
    seeds: int = 1
    grader: Grader | None = None
    shard: Shard = WHOLE

    @property
    def max_new_tokens(self) -> int:
        return self.forcing.max_new_tokens

    @property
    def max_answer(self) -> int:
        return self.forcing.max_answer


def require_methods(names: Sequence[str]) -> None:
    """Raises ValueError for an unknown method."""
    known = (*DECODED, *BOUNDS)
    for name in names:
        if name not in known:
            raise ValueError(f"unknown method {name!r}: choose among {', '.join(known)}")


def decoded_traces(
    session: Session, problems: Sequence[Problem], name: str, setting: Setting, folder: Path
) -> Sequence[dict]:
    """Traces of a method that exits nowhere (`think`, `nothink`, `eagle3`) for exactly these problems, every seed of each."""
    return decoded_by(session, problems, _method(session, name, setting), setting, folder, stem_of(name))


def decode(session: Session, problems: Sequence[Problem], name: str, setting: Setting, folder: Path) -> None:
    """Decodes the shard's traces of such a method that no process has written yet."""
    method = _method(session, name, setting)
    roll_out(session, problems, method, folder, _rollout(setting), stem_of(name), setting.grader)


def stem_of(name: str) -> str:
    """The stem of the file with a method's traces."""
    return "traces" if name == "eagle3" else name


def _method(session: Session, name: str, setting: Setting) -> Method:
    return make_method(session, name, draft_tokens=setting.draft_tokens)


def require_alike(session: Session, setting: Setting, folder: Path, kinds: Sequence[str] | None) -> None:
    """Raises ValueError, before anything is decoded, if the folder holds traces or labels of other settings. kinds: of
    the boundaries to annotate, None for no annotation."""
    settings = _rollout(setting).settings(session)
    for stem in ("traces", *(name for name in ("think", "nothink") if name in setting.methods)):
        require_settings(folder, report_of(stem), settings)
    if kinds is not None:
        own = kinds_to_annotate(folder, kinds)
        require_alike_labels(session, folder, own, setting.forcing, setting.target, setting.source)


def _rollout(setting: Setting) -> Rollout:
    names = {"target": setting.target, "source": setting.source}
    return Rollout(setting.seed, setting.batch_size, setting.max_new_tokens, setting.seeds, setting.shard, **names)


def decoded_by(
    session: Session, problems: Sequence[Problem], method: Method, setting: Setting, folder: Path, stem: str
) -> Sequence[dict]:
    """The method's traces, kept in FOLDER/STEM.jsonl."""
    roll_out(session, problems, method, folder, _rollout(setting), stem, setting.grader)
    wanted = [name_of(problem, sample) for problem in problems for sample in range(setting.seeds)]
    own = session.draft_digest if method.draft_tokens else None
    return read_shards(folder, stem).of(wanted).mapped(functools.partial(_without_others_steps, own)).brief()


def _without_others_steps(own: str | None, trace: dict) -> dict:
    """The trace without acceptance counts unless they are this draft's; its tokens are the same under any draft."""
    return trace if same(own, trace.get("draft")) else trace | {"accepted": []}


def annotated(
    session: Session, traces: Sequence[dict], kinds: Sequence[str], setting: Setting, folder: Path
) -> Sequence[dict]:
    """Labels of these traces at boundaries of these kinds, annotating what is missing; a folder that was annotated at more
    kinds goes on with all of them."""
    own = kinds_to_annotate(folder, kinds)
    annotate(session, folder, own, setting.forcing, target=setting.target, grader=setting.grader)
    return labels_at(traces, join_labels(traces, read_shards(folder, "labels").brief()), session.boundaries(kinds))


def extracted(session: Session, traces: Sequence[dict], draft, folder: Path, name: str = "signals.npz") -> Extracted:
    """The signals of the session's draft along these traces, cached in FOLDER/NAME (and by shares in files of their own)."""
    kept = _kept_signals(folder, name, session.draft_digest)
    if _missing(traces, kept) or not (folder / name).is_file():
        _write_signals(session, traces, draft, folder / name, kept, kept)
        kept = kept | load_signals(folder / name, session.draft_digest)
    return Extracted(kept, {})


def extract_share(session: Session, traces: Sequence[dict], draft, folder: Path, shard: Shard) -> None:
    """Leaves the signals along these traces, as far as no process has them, for `extracted`."""
    kept = _kept_signals(folder, "signals.npz", session.draft_digest)
    if _missing(traces, kept):
        own = [name for name in ids_in(traces) if name in kept]
        _write_signals(session, traces, draft, shard.path(folder, "signals", ".npz"), kept, own)


def _missing(traces: Sequence[dict], kept: StoredSignals) -> list[int]:
    """The numbers of the traces without signals."""
    return [number for number, name in enumerate(ids_in(traces)) if name not in kept]


def _write_signals(
    session: Session, traces: Sequence[dict], draft, path: Path, kept: StoredSignals, own: Iterable[str]
) -> None:
    """Writes those of `own` that are kept, and the signals along the traces that lack them."""
    own, rest = list(own), taken(traces, _missing(traces, kept))
    asked = session.target, session.params.target, session.end_think_ids, rest, draft
    found = signals_along(*asked) if len(rest) else ()
    tokens = sum(map(kept.tokens, own)) + sum(len(trace["ids"]) for trace in brief_rows(rest))
    write_signals(path, itertools.chain(((name, kept[name]) for name in own), found), tokens, session.draft_digest)


def _kept_signals(folder: Path, name: str, digest: str) -> StoredSignals:
    """The signals in the files of all processes; none of a file of another draft."""
    kept = StoredSignals()
    for path in shard_files(folder, Path(name).stem, Path(name).suffix):
        with contextlib.suppress(FileNotFoundError, ValueError):
            kept |= load_signals(path, digest)
    return kept


def replayed_records(
    session: Session,
    names: Sequence[str],
    policy: Policy,
    traces: Sequence[dict],
    labels: Sequence[dict],
    signals,
    max_answer: int,
) -> list[Record]:
    """Records of the exiting methods by replay; `probe` exits where `specexit` does. max_answer: of the labels."""
    records = []
    for name in names:
        rule = policy_of(session, name, policy, max_answer)
        found = replay_each(rule, traces, labels, signals, session.end_think_ids)
        own = {number: record_of_replay(name, trace, shown) for number, trace, shown in found}
        records += [own[number] for number in range(len(traces))]
    return records


def decodable(session: Session, problems: Sequence[Problem], traces: Sequence[dict]) -> list[Problem]:
    """The problems whose prompts leave room in the target's context, with their thinking open or closed; traces: of them all."""
    thinking = session.thinking
    closing = len(thinking.closed_suffix) + len(thinking.end) if thinking else 0
    room = session.target.max_position - closing
    full = {trace.get("problem", trace["id"]) for trace in traces if len(trace["prompt_ids"]) >= room}
    return [problem for problem in problems if problem.id not in full]
