"""launch.evaluate --from_records: makes results and reports again from WORKDIR; nothing is decoded, no model is
loaded."""

import dataclasses
from pathlib import Path

import ml_collections
from absl import flags

from launch import checks
from specexit_jax.data.tokenizer import has_tokenizer, load_tokenizer
from specexit_jax.engine.session import local_folder, token_texts
from specexit_jax.evaluation.pipeline.from_records import recompute
from specexit_jax.exits.boundaries import make_boundaries
from specexit_jax.exits.policy_file import load_policy
from specexit_jax.models.checkpoints.content import former_digest
from specexit_jax.models.checkpoints.hf import load_target_config
from specexit_jax.storage.identity import Identity

_WANTED = flags.DEFINE_bool(
    "from_records", False, "Decode nothing; write results and reports anew from WORKDIR/records.jsonl."
)


def wanted() -> bool:
    return _WANTED.value


def policy_of(config: ml_collections.ConfigDict) -> Path | None:
    """The policy that the traces exited by, if there is one. Refuses a workdir without records."""
    if not (Path(flags.FLAGS.workdir) / "records.jsonl").is_file():
        raise FileNotFoundError(
            f"{flags.FLAGS.workdir}/records.jsonl does not exist: evaluate first, without --from_records."
        )
    policy = checks.policy_of(config, needed=False)
    return policy if policy is not None and policy.is_file() else None


def results(config: ml_collections.ConfigDict, workdir: Path, policy: Path | None) -> dict:
    """`from_records.recompute` with the policy and the target's tokenizer, if they exist."""
    folder = local_folder(config.target, "target")
    tokenizer = load_tokenizer(folder) if has_tokenizer(folder) else None
    file = load_policy(policy) if policy else None
    draft = checks.draft_of(config, needed=False)
    if (
        file is not None and draft and Path(draft).is_dir()
    ):  # signals stored by an earlier version, under the older digest of the draft
        file = dataclasses.replace(file, draft=Identity(file.draft, lambda: former_digest(Path(draft))))
    boundaries = None
    if file is not None and tokenizer is not None:
        texts = token_texts(tokenizer, load_target_config(folder).vocab_size)
        boundaries = make_boundaries(texts, file.boundary_kinds)
    return recompute(workdir, config.evaluate.split, file, tokenizer, boundaries)
