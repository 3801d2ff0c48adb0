"""The model of --config, with the draft and policy of --workdir, and what serving it needs."""

import importlib.util

from absl import flags

from launch import checks, door, loading, strictness
from specexit_jax.api.model import SpecExit

FLAGS = flags.FLAGS


def check() -> None:
    """Refuses a lack of the packages that serve, and a --workdir without --config."""
    for name in ("starlette", "uvicorn", "prometheus_client"):
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"{name} is not installed: pip install 'specexit-jax[serve]'.")
    if FLAGS["config"].value is None and FLAGS.workdir is not None:
        raise ValueError("--workdir has the draft and policy of an experiment: give --config too.")


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
