"""One prompt in, the text out: the thinking dimmed, the moment of the exit, and what it saved.

python -m launch.generate --prompt="What is 12 + 30 - 4?"    # the bundled model; --target, --draft, --policy: yours
"""

from absl import flags

from launch import door, transcript
from specexit_jax.methods import DECODED, DRAFT_TOKENS, make_method, read_policy
from specexit_jax.run import Request, run
from specexit_jax.session import EMBEDDED, Session, chat_ids, load_session

FLAGS = flags.FLAGS
SAMPLING = ("temperature", "top_k", "top_p", "min_p")  # flags
flags.DEFINE_string("target", str(EMBEDDED / "target"), "Folder of the target model, or its name on the hub.")
flags.DEFINE_string("draft", None, "Folder of the draft model (default: the bundled one for the bundled target).")
flags.DEFINE_enum(
    "draft_layer_ids", None, ["inputs", "outputs"], "What the draft's layer ids count, where it is silent."
)
flags.DEFINE_string("policy", None, "The exit policy, a policy.json (default: the bundled one).")
flags.DEFINE_string("method", None, f"One of {', '.join(DECODED)} (default: specexit; think without a draft).")
flags.DEFINE_string("prompt", None, "The question.")
flags.DEFINE_list("prompt_ids", None, "The whole prompt as token ids, instead of --prompt: 1,2,3.")
flags.DEFINE_float("temperature", None, "0 is greedy (default: the target's own).")
flags.DEFINE_integer("top_k", None, "Keep the k likeliest tokens; 0 keeps all (default: the target's own).")
flags.DEFINE_float("top_p", None, "Keep the likeliest that reach this probability (default: likewise).")
flags.DEFINE_float("min_p", None, "Keep tokens this likely beside the likeliest (default: likewise).")
flags.DEFINE_integer("seed", 0, "Seed of the sampling.", lower_bound=0)
flags.DEFINE_integer("max_new_tokens", None, "Most tokens to generate (default: the target's own).")
flags.DEFINE_enum("exit_rule", None, ["default", "released"], "The policy's rule, or that of the released code.")
flags.DEFINE_string("smoother", None, "ewma, momentum, mean, paragraph_mean or none (default: the policy's).")
flags.DEFINE_integer("draft_tokens", DRAFT_TOKENS, "Tokens drafted a step.")
flags.DEFINE_bool("compare", True, "After an exit, run the same request without it (not with --json).")
flags.DEFINE_bool("json", False, "One line of JSON: text, ids, thinking_tokens, exit, tau, seconds.")


def main() -> None:
    door.decode_on_one_thread()
    if (FLAGS.prompt is None) == (FLAGS.prompt_ids is None):
        raise ValueError("Give either --prompt=TEXT or --prompt_ids=1,2,3.")
    bundled = FLAGS.target == str(EMBEDDED / "target")
    draft = FLAGS.draft or (str(EMBEDDED / "draft") if bundled else None)
    name = FLAGS.method or ("specexit" if draft else "think")
    door.known("method", name, DECODED)
    session = load_session(FLAGS.target, draft, draft_layer_ids=FLAGS.draft_layer_ids)
    policy, kinds = None, ("paragraph",)
    if name in ("specexit", "probe"):
        policy, kinds = read_policy(session, FLAGS.policy or EMBEDDED / "policy.json", FLAGS.exit_rule, FLAGS.smoother)
    request = Request("generate", prompt_ids(session), FLAGS.seed)
    settings = {
        "sampling": transcript.sampling(session, **{name: FLAGS[name].value for name in SAMPLING}),
        "max_new_tokens": FLAGS.max_new_tokens,
    }
    method = make_method(session, name, policy, kinds, FLAGS.draft_tokens)
    (outcome,) = run(session, [request], method, **settings)
    if FLAGS.json:
        door.say(transcript.as_json(session, outcome))
        return
    door.say(transcript.text(session, outcome, door.colours()))
    if outcome.exit is not None and FLAGS.compare:
        without = make_method(session, "eagle3" if method.draft_tokens else "think", draft_tokens=FLAGS.draft_tokens)
        (longer,) = run(session, [request], without, **settings)
        door.say(transcript.saved(session, outcome, longer, without.name))


def prompt_ids(session: Session) -> tuple[int, ...]:
    if FLAGS.prompt_ids is None:
        return tuple(chat_ids(session, FLAGS.prompt))
    return door.whole_numbers("prompt_ids", FLAGS.prompt_ids)


if __name__ == "__main__":
    door.run(main)
