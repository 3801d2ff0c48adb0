"""The model of --config, with the draft and policy of --workdir."""

from absl import flags

from launch import checks, door, loading, strictness
from specexit_jax.api.model import SpecExit

FLAGS = flags.FLAGS


def model() -> SpecExit:
    """Without --workdir with the config's own draft and policy."""
    config = door.config()
    if FLAGS.workdir is None:
        draft, policy = config.draft or None, config.policy or None
    else:
        draft, policy = checks.draft_of(config, needed=False), checks.policy_of(config, needed=False)
    mesh = loading.mesh([str(size) for size in config.mesh.values()])
    drafts = {"draft_tokens": config.evaluate.draft_tokens, "strict_policy": strictness.enabled()}
    drafts |= {"attention": config.get("attention", "xla")}
    return SpecExit.load(config.target, draft, policy if draft else None, dtype=config.dtype, mesh=mesh, **drafts)
