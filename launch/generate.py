"""One prompt in, the text out: the thinking dimmed, the moment of the exit, and what it saved.

python -m launch.generate --example=chain_sum    # a question of the bundled model's; of yours: --prompt=…
python -m launch.generate --target=FOLDER --draft=FOLDER --prompt="What is 12 + 30 - 4?"
The first line says which method decodes, and why (on standard error with --json and --stream).
"""

from absl import flags

from launch import bundled, door, live, models, strictness, transcript
from specexit_jax.data.known_prompts import EXAMPLES
from specexit_jax.engine.methods import make_method
from specexit_jax.engine.requests import Request, prepare
from specexit_jax.engine.run import run
from specexit_jax.engine.session import Session, chat_ids
from specexit_jax.engine.streaming import stream_pieces

FLAGS = flags.FLAGS
flags.DEFINE_string("prompt", None, "The question.")
flags.DEFINE_list("prompt_ids", None, "The whole prompt as token ids, instead of --prompt: 1,2,3.")
flags.DEFINE_enum(
    "example", None, list(EXAMPLES), "Instead of --prompt: a question of this task, of the bundled model's six."
)
flags.DEFINE_bool("compare", True, "After an exit, run the same request without it (not with --json or --stream).")
flags.DEFINE_bool("stream", False, "Show the text as it comes, with a meter for each signal.")
flags.DEFINE_bool("json", False, "One line of JSON: text, ids, thinking_tokens, exit, tau, seconds.")


def main() -> None:
    door.decode_on_one_thread()
    prompt = check()
    session, method, choice = models.chosen()
    request = Request("generate", prompt_ids(session, prompt), FLAGS.seed)
    settings = {"sampling": models.sampling(session), "max_new_tokens": FLAGS.max_new_tokens}
    prepare(session, [request], method, FLAGS.max_new_tokens)
    tell = door.aside if FLAGS.json or FLAGS.stream else door.say
    strictness.told(choice.uncovered)
    tell(choice.line)
    if FLAGS.example:
        tell(f"prompt: {prompt}")
    if prompt is not None and bundled.is_bundled(FLAGS.target) and (warning := bundled.warning(prompt)):
        tell(warning)
    if FLAGS.stream:
        outcome = live.show(stream_pieces(session, request, method, **settings), door.colours())
        door.say(transcript.numbers(outcome))
        return
    (outcome,) = run(session, [request], method, **settings)
    if FLAGS.json:
        door.say(transcript.as_json(session, outcome))
        return
    door.say(transcript.text(session, outcome, door.colours()))
    if outcome.exit is not None and FLAGS.compare:
        name = "eagle3" if method.draft_tokens else "think"
        without = make_method(session, name, draft_tokens=FLAGS.draft_tokens, tree=method.tree)
        (longer,) = run(session, [request], without, **settings)
        door.say(transcript.saved(session, outcome, longer, name))


def check() -> str | None:
    """The prompt's text, None where ids were given. Refuses flags that do not fit together and empty prompts."""
    models.check()
    given = [name for name in ("prompt", "prompt_ids", "example") if FLAGS[name].value is not None]
    if len(given) != 1:
        raise ValueError("Give either --prompt=TEXT or --prompt_ids=1,2,3, or --example=TASK.")
    if FLAGS.stream and FLAGS.json:
        raise ValueError("Give either --stream or --json.")
    prompt = EXAMPLES[FLAGS.example] if FLAGS.example else FLAGS.prompt
    if prompt is not None and not prompt.strip():
        raise ValueError("--prompt is empty: give a question.")
    return prompt


def prompt_ids(session: Session, prompt: str | None) -> tuple[int, ...]:
    return door.whole_numbers("prompt_ids", FLAGS.prompt_ids) if prompt is None else tuple(chat_ids(session, prompt))


if __name__ == "__main__":
    door.run(main)
