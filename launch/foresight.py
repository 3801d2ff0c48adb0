"""The highest AUC that a confidence could reach, from several continuations at boundaries of a split:
WORKDIR/foresight.json.

python -m launch.foresight --config=configs/embedded.py --workdir=runs/embedded [--split=development] [--boundaries=600]
    [--continuations=16]
The split must be rolled out and annotated. Rows are stored in WORKDIR/SPLIT/foresight.jsonl; a killed run is continued.
"""

from collections.abc import Sequence
from pathlib import Path

import ml_collections
from absl import flags

from launch import checks, door, loading, stages
from specexit_jax.annotation.kinds import annotated_split
from specexit_jax.annotation.replay import smoothed_at_boundaries
from specexit_jax.data.splits import SPLITS
from specexit_jax.engine.methods import make_method
from specexit_jax.engine.session import Session
from specexit_jax.evaluation.foresight import Foresight, Place, chosen_places, go_on, summary
from specexit_jax.evaluation.pipeline.harness import extracted
from specexit_jax.exits.policy_file import load_policy
from specexit_jax.exits.signals import agreement_column
from specexit_jax.models.draft_layer import DraftBundle
from specexit_jax.storage.checkpoint import write_json
from specexit_jax.storage.shards import require_settings

_SPLIT = flags.DEFINE_string("split", "development", "Split that the boundaries are drawn from.")
_BOUNDARIES = flags.DEFINE_integer("boundaries", 600, "Number of boundaries.")
_CONTINUATIONS = flags.DEFINE_integer("continuations", 16, "Continuations that are sampled from each boundary.")


def check():
    """Returns the config and the draft. Refuses a split that is not annotated."""
    config = door.config()
    door.known("split", _SPLIT.value, tuple(SPLITS))
    folder, draft = Path(flags.FLAGS.workdir) / _SPLIT.value, checks.draft_of(config)
    checks.annotated(folder)
    stages.require_source(config, folder)
    return config, draft


def main() -> None:
    door.decode_on_one_thread()
    door.alone("foresight")
    door.claim_stage("foresight")
    config, trained = check()
    workdir = Path(flags.FLAGS.workdir)
    folder = workdir / _SPLIT.value
    sizes = _BOUNDARIES.value, _CONTINUATIONS.value, config.seed, stages.rows_of(config, config.evaluate.batch_size)
    setting = Foresight(*sizes, config.rollout.max_new_tokens, stages.target_name(config))
    session = loading.open_session(config, trained)
    checks.signals(session)
    require_settings(folder, "rollout", {"sampling": session.sampling.settings()})
    traces, labels = annotated_split(session, folder, config.annotate.kinds)
    draft = DraftBundle(session.draft, session.params.draft, session.params.d2t)
    signals = extracted(session, traces, draft, folder).signals
    places = chosen_places(traces, labels, setting.boundaries, setting.seed)
    method = make_method(session, "eagle3", draft_tokens=config.evaluate.draft_tokens)
    rows = go_on(session, places, method, setting, folder, stages.grader_of(config))
    column = agreement_column(session.draft.signal_names)
    confidence = [signals[place.trace["id"]][place.token, column] for place in places]
    found = summary(rows, confidence, score=_scores(session, config, places, signals))
    write_json(workdir / "foresight.json", found | {"split": _SPLIT.value})
    auc = {name: "{value:.3f} ({ci95[0]:.3f} to {ci95[1]:.3f})".format(**told) for name, told in found["auc"].items()}
    score = f"exit score {auc['score']}; " if "score" in auc else ""
    door.say(
        f"AUC of agreement at {found['boundaries']} boundaries of {_SPLIT.value} ({100 * found['agreeing']:.0f} % agree): "
        f"confidence {auc['confidence']}; {score}the share of {found['continuations']} continuations {auc['share']}; "
        f"the probability that it estimates {found['auc_of_probability']:.3f}, the most that a score of the text so far can reach"
    )


def _scores(
    session: Session, config: ml_collections.ConfigDict, places: Sequence[Place], signals
) -> list[float] | None:
    """The policy's exit score at these boundaries; None where it has none, or exits at other kinds of boundaries."""
    path = checks.policy_of(config, needed=False)
    file = path and load_policy(path, session.draft_digest)
    if not file or file.score is None or set(file.boundary_kinds) != set(config.annotate.kinds):
        return None
    traces = {place.trace["id"]: (place.trace, place.label) for place in places}
    seen = smoothed_at_boundaries(file.policy().smoother, *zip(*traces.values(), strict=True), signals)
    rows = dict(zip(traces, seen, strict=True))
    return [float(rows[place.trace["id"]][place.number, -1]) for place in places]


if __name__ == "__main__":
    door.define_config()
    door.run(main)
