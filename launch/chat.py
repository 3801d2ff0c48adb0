"""A conversation: one message a line of standard input, the answers as they come; earlier turns stay in the cache.

python -m launch.chat [--target=…] [--draft=…] [--policy=…] [--method=…]       # the bundled model unless told otherwise
"""

import sys

from absl import flags

from launch import bundled, door, live, models, strictness, transcript
from specexit_jax.engine.conversation import CONTEXT, Conversation

FLAGS = flags.FLAGS
flags.DEFINE_integer("context", CONTEXT, "Tokens that the conversation may have in all.", lower_bound=2)


def check() -> None:
    models.check()


def main() -> None:
    door.decode_on_one_thread()
    session, method, choice = models.chosen()
    settings = {"sampling": models.sampling(session), "max_new_tokens": FLAGS.max_new_tokens}
    conversation = Conversation(session, method, context=FLAGS.context, seed=FLAGS.seed, **settings)
    strictness.told(choice.uncovered)
    door.say(choice.line)
    known = bundled.is_bundled(FLAGS.target)
    if sys.stdin.isatty():
        door.say("One message a line; the end of input (Ctrl-D) ends the conversation.")
    for line in sys.stdin:
        if message := line.strip():
            if known and (warning := bundled.warning(message, turn=len(conversation.messages) // 2)):
                door.say(warning)
            outcome = live.show(conversation.say(message), door.colours())
            kept = conversation.prompted - conversation.computed
            door.say(
                f"{transcript.numbers(outcome)}; {kept} of {conversation.prompted} prompt tokens were in the cache\n"
            )


if __name__ == "__main__":
    door.run(main)
