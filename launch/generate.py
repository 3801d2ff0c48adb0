"""One prompt in, the text out: the thinking dimmed, the moment of the exit, and what it saved.

python -m launch.generate --prompt="What is 12 + 30 - 4?"    # the bundled model; --target, --draft, --policy: yours
"""

from absl import flags

from launch import door, live, models, transcript
from specexit_jax.methods import make_method
from specexit_jax.requests import Request
from specexit_jax.run import run
from specexit_jax.session import Session, chat_ids
from specexit_jax.streaming import stream_pieces

FLAGS = flags.FLAGS
flags.DEFINE_string("prompt", None, "The question.")
flags.DEFINE_list("prompt_ids", None, "The whole prompt as token ids, instead of --prompt: 1,2,3.")
flags.DEFINE_bool("compare", True, "After an exit, run the same request without it (not with --json or --stream).")
flags.DEFINE_bool("stream", False, "Show the text as it comes, with a meter for each signal.")
flags.DEFINE_bool("json", False, "One line of JSON: text, ids, thinking_tokens, exit, tau, seconds.")


def main() -> None:
    door.decode_on_one_thread()
    if (FLAGS.prompt is None) == (FLAGS.prompt_ids is None):
        raise ValueError("Give either --prompt=TEXT or --prompt_ids=1,2,3.")
    if FLAGS.stream and FLAGS.json:
        raise ValueError("Give either --stream or --json.")
    session, method = models.chosen()
    request = Request("generate", prompt_ids(session), FLAGS.seed)
    settings = {"sampling": models.sampling(session), "max_new_tokens": FLAGS.max_new_tokens}
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


def prompt_ids(session: Session) -> tuple[int, ...]:
    if FLAGS.prompt_ids is None:
        return tuple(chat_ids(session, FLAGS.prompt))
    return door.whole_numbers("prompt_ids", FLAGS.prompt_ids)


if __name__ == "__main__":
    door.run(main)
