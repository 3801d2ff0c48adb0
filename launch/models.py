"""The flags by which a command names the model, the draft, the policy and the method that it decodes with."""

from absl import flags

from launch import bundled, door, strictness
from specexit_jax.api.arguments import Settings
from specexit_jax.api.model import SpecExit
from specexit_jax.decoding.sampling import RULES
from specexit_jax.engine.methods import DECODED, DRAFT_TOKENS
from specexit_jax.engine.session import EMBEDDED
from specexit_jax.exits.policy import POLICIES
from specexit_jax.exits.smoothers import SMOOTHERS

FLAGS = flags.FLAGS
flags.DEFINE_string("target", bundled.TARGET, "Folder of the target model, or its name on the hub.")
flags.DEFINE_string("draft", None, "Folder of the draft model (default: the bundled one for the bundled target).")
flags.DEFINE_enum(
    "draft_layer_ids", None, ["inputs", "outputs"], "What the draft's layer ids count, where it is silent."
)
flags.DEFINE_string(
    "policy", None, "The exit policy, a policy.json (default: the one in the draft's folder or beside it)."
)
flags.DEFINE_string(
    "method",
    None,
    f"One of {', '.join(DECODED)} (default: specexit by the draft's own policy; eagle3 where it has none; think without a draft).",
)
flags.DEFINE_float("temperature", None, "0 is greedy (default: the target's own).")
flags.DEFINE_integer("top_k", None, "Keep the k likeliest tokens; 0 keeps all (default: the target's own).")
flags.DEFINE_float("top_p", None, "Keep the likeliest that reach this probability (default: likewise).")
flags.DEFINE_float("min_p", None, "Keep tokens this likely beside the likeliest (default: likewise).")
flags.DEFINE_float("repetition_penalty", None, "Of tokens that were there before; 1 is none (default: likewise).")
flags.DEFINE_enum("rule", None, list(RULES), "How sampled drafts are accepted (default: keyed, reproducible).")
flags.DEFINE_integer("seed", 0, "Seed of the sampling.", lower_bound=0)
flags.DEFINE_bool("exits", True, "Take the policy's exits; --noexits decodes as if it granted none.")
flags.DEFINE_integer("max_new_tokens", None, "Most tokens to generate (default: the target's own).")
flags.DEFINE_enum("exit_rule", None, list(POLICIES), "The policy's rule, or that of the released code.")
flags.DEFINE_string("smoother", None, f"{', '.join(SMOOTHERS)}, instead of the policy's.")
flags.DEFINE_integer("draft_tokens", DRAFT_TOKENS, "Tokens drafted a step.")
flags.DEFINE_list("tree", None, "depth,top_k,total: draft such a tree a step instead of a chain.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "float16"], "Of the weights and the computation.")
flags.DEFINE_list("mesh", None, "data,fsdp,tensor: devices to shard over, one may be -1 (default: one device).")


def check() -> None:
    """Refuses a method, a tree or a mesh that there is not."""
    if FLAGS.method:
        door.known("method", FLAGS.method, DECODED)
    door.tree(FLAGS.tree)
    if FLAGS.mesh:
        door.mesh_sizes(FLAGS.mesh)


def loaded() -> SpecExit:
    """What the flags name, loaded; the bundled model's own draft where they name none."""
    check()
    draft = FLAGS.draft or (EMBEDDED / "draft" if bundled.is_bundled(FLAGS.target) else None)
    return SpecExit.load(
        FLAGS.target,
        draft,
        FLAGS.policy,
        dtype=FLAGS.dtype,
        mesh=door.mesh(FLAGS.mesh),
        draft_layer_ids=FLAGS.draft_layer_ids,
        exit_rule=FLAGS.exit_rule,
        smoother=FLAGS.smoother,
        draft_tokens=FLAGS.draft_tokens,
        tree=door.tree(FLAGS.tree),
        strict_policy=strictness.asked(),
    )


def with_flags(line: str) -> str:
    """The line that says which method decodes and why, and the flag that names what is missing."""
    if FLAGS.method is None and line.startswith("method think:"):
        return f"{line}; --draft=FOLDER names a draft"
    if FLAGS.method is None and line.startswith("method eagle3: no exit"):
        return f"{line}; --policy=FILE names a policy"
    return line


def settings() -> Settings:
    """What the flags ask of a request."""
    return {name: FLAGS[name].value for name in Settings.__annotations__}
