"""A certified policy of an MTP draft: read along traces, walked, bound to its draft, decoded with; refused for any other draft."""

import shutil

import jax.numpy as jnp
import pytest
from annotated_case import traces_and_labels, write_split
from random_params import random_params

from specexit_jax import SpecExit
from specexit_jax.engine.choice import choose
from specexit_jax.engine.session import load_session
from specexit_jax.evaluation.certified import conditions
from specexit_jax.evaluation.certified.certify import Goal, scored
from specexit_jax.evaluation.pipeline.calibrating import by_certificate, seen_split
from specexit_jax.exits.policy_file import save_policy
from specexit_jax.models.checkpoints.drafts import save_draft
from specexit_jax.models.checkpoints.hf import load_target_config
from specexit_jax.models.draft import init_draft
from specexit_jax.models.draft_layer import DraftBundle
from specexit_jax.models.mtp_config import mtp_config

KINDS, EPSILON = ("paragraph",), 0.2
PROBLEMS = 14  # the fewest that certify it at 5 %, none harmed


@pytest.fixture(scope="module")
def workdir(tiny, tmp_path_factory):
    """What launch.train and launch.calibrate leave: an MTP draft, and a policy that is certified on made-up traces."""
    folder = tmp_path_factory.mktemp("mtp")
    config = mtp_config(load_target_config(tiny / "target"), "mimo")
    params = random_params(init_draft, config, 3)
    save_draft(folder / "draft_model", DraftBundle(config, params, jnp.arange(config.vocab_size, dtype=jnp.int32)))
    session = load_session(tiny / "target", folder / "draft_model")
    goal, said = Goal(EPSILON, 0.05), []
    splits = []
    for name in ("development", "calibration"):
        write_split(folder / name, *traces_and_labels(PROBLEMS, KINDS), KINDS)
        splits.append(seen_split(session, folder / name, ("none", "ewma"), KINDS, said.append))
    file = by_certificate(
        scored(splits[0].by_smoother, goal), splits[1], goal, KINDS, session.draft_digest, said.append
    )
    bind = conditions.binder(session, folder / "calibration", 48)
    save_policy(folder / "policy.json", bind(file))
    return folder


def test_the_policy_is_found_covers_the_run_and_exits(workdir, tiny):
    model = SpecExit.load(tiny / "target", workdir / "draft_model", draft_tokens=2)
    answer = model.generate("Count the legs of 3 dogs.")
    assert (answer.method, answer.policy.path) == ("specexit", str(workdir / "policy.json"))
    assert answer.policy.uncovered is None
    found = answer.policy.certificate
    assert (found.epsilon, found.problems, found.harmed) == (EPSILON, PROBLEMS, 0)
    assert answer.exit.signals.keys() == {"confidence", "progress", "remain"}


def test_the_policy_of_one_draft_is_not_anothers_whatever_their_kinds(workdir, tiny, tmp_path):
    shutil.copytree(tiny / "draft", tmp_path / "draft_model")
    shutil.copy(workdir / "policy.json", tmp_path)
    eagle, mtp = (load_session(tiny / "target", folder / "draft_model") for folder in (tmp_path, workdir))
    assert "calibrated for another draft" in choose(eagle, tmp_path / "draft_model").line
    for session, policy in ((eagle, workdir / "policy.json"), (mtp, tiny / "policy.json")):
        with pytest.raises(ValueError, match="calibrated for another draft"):
            choose(session, workdir / "draft_model", policy=policy)
