"""The flags by which a command names the model, the draft, the policy and the method that it decodes with."""

from absl import flags

from launch import bundled, door, loading, strictness
from specexit_jax.api.arguments import Settings
from specexit_jax.api.model import SpecExit
from specexit_jax.decoding.sampling import RULES
from specexit_jax.engine.methods import DECODED, DRAFT_TOKENS
from specexit_jax.engine.session import EMBEDDED
from specexit_jax.exits.policy import POLICIES
from specexit_jax.exits.smoothers import SMOOTHERS
from specexit_jax.models.config import ATTENTIONS

FLAGS = flags.FLAGS
flags.DEFINE_string("target", bundled.TARGET, "Folder of the target model, or its name on the hub.")
flags.DEFINE_string(
    "draft",
    None,
    "Folder of the draft model, or builtin: the MTP layer in the target's checkpoint. Default: for the bundled target the bundled "
    "draft, else none.",
)
flags.DEFINE_enum(
    "draft_layer_ids",
    None,
    ["inputs", "outputs"],
    "What the layer ids in the draft's files count, where the files do not say.",
)
flags.DEFINE_string("policy", None, "Exit policy, a policy.json; default: the one in the draft's folder or beside it.")
flags.DEFINE_string(
    "method",
    None,
    f"Decoding method: {', '.join(DECODED)}. Default: specexit where the draft has a policy, else eagle3; think without a draft.",
)
flags.DEFINE_float("temperature", None, "Sampling temperature; 0 is greedy. Default: the target's own.")
flags.DEFINE_integer("top_k", None, "Keep the k most likely tokens; 0 keeps all. Default: the target's own.")
flags.DEFINE_float(
    "top_p",
    None,
    "Keep the most likely tokens that together reach this probability; 1 keeps all. Default: the target's own.",
)
flags.DEFINE_float(
    "min_p",
    None,
    "Keep tokens with at least this fraction of the most likely token's probability; 0 keeps all. Default: the target's own.",
)
flags.DEFINE_float(
    "repetition_penalty", None, "Penalty on tokens that occurred before; 1 is none. Default: the target's own."
)
flags.DEFINE_enum(
    "rule",
    None,
    list(RULES),
    "How drafts are accepted where tokens are sampled; default: keyed, which writes the same tokens as decoding without drafts.",
)
flags.DEFINE_integer("seed", 0, "Seed of the sampling.", lower_bound=0)
flags.DEFINE_bool("exits", True, "Take the policy's exits. --noexits runs the same program without taking them.")
flags.DEFINE_float(
    "epsilon",
    None,
    "Risk of the exits, of those that the policy is certified for (frontier.json beside it has others). Default: the policy's.",
    allow_override=True,  # commands that certify have a flag of this name; where one process imports both, theirs is the later
)
flags.DEFINE_integer(
    "thinking_budget", None, "The most thinking tokens; </think> follows the last. Default: any number.", lower_bound=0
)
flags.DEFINE_integer(
    "max_new_tokens", None, "The most tokens to generate, thinking and answer. Default: the target's own."
)
flags.DEFINE_enum(
    "exit_rule",
    None,
    list(POLICIES),
    "Exit rule to use instead of the policy's own: default, or released (that of the released SpecExit code).",
)
flags.DEFINE_string("smoother", None, f"Smoother to use instead of the policy's own: {', '.join(SMOOTHERS)}.")
flags.DEFINE_integer("draft_tokens", DRAFT_TOKENS, "Drafts of each step.")
flags.DEFINE_list("tree", None, "depth,top_k,total: use a draft tree of this shape instead of a chain.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "float16"], "Data type of weights and computation.")
flags.DEFINE_enum(
    "attention",
    "xla",
    list(ATTENTIONS),
    "How a step reads the caches: plain XLA, or kernels for TPUs and GPUs that follow each row's own length.",
)
flags.DEFINE_list("mesh", None, "data,fsdp,tensor: devices on each mesh axis, one may be -1; default: one device.")


def check() -> None:
    """Refuses an unknown method, and a malformed tree or mesh."""
    if FLAGS.method:
        door.known("method", FLAGS.method, DECODED)
    door.tree(FLAGS.tree)
    if FLAGS.mesh:
        loading.mesh_sizes(FLAGS.mesh)


def loaded() -> SpecExit:
    """The model that the flags name; the bundled target gets its own draft where --draft is not given."""
    check()
    draft = FLAGS.draft or (EMBEDDED / "draft" if bundled.is_bundled(FLAGS.target) else None)
    return SpecExit.load(
        FLAGS.target,
        draft,
        FLAGS.policy,
        dtype=FLAGS.dtype,
        mesh=loading.mesh(FLAGS.mesh),
        draft_layer_ids=FLAGS.draft_layer_ids,
        exit_rule=FLAGS.exit_rule,
        smoother=FLAGS.smoother,
        draft_tokens=FLAGS.draft_tokens,
        tree=door.tree(FLAGS.tree),
        strict_policy=strictness.enabled(),
        attention=FLAGS.attention,
    )


def with_flags(line: str) -> str:
    """The line that says which method decodes and why, and the flag that names what is missing."""
    if FLAGS.method is None and line.startswith("method think:"):
        return f"{line}; --draft=FOLDER names a draft"
    if FLAGS.method is None and line.startswith("method eagle3: no exit"):
        return f"{line}; --policy=FILE names a policy"
    return line


def settings() -> Settings:
    """The settings of a request, from the flags."""
    return {name: FLAGS[name].value for name in Settings.__annotations__}
