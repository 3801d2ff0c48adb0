"""A conversation: each line of standard input is a message, and its answer is streamed. Earlier turns stay in the cache.

python -m launch.chat [--target=…] [--draft=…] [--policy=…] [--method=…]       # default: the bundled model
"""

import sys

from absl import flags

from launch import bundled, door, live, models, transcript
from specexit_jax.engine.conversation import CONTEXT

FLAGS = flags.FLAGS
flags.DEFINE_integer("context", CONTEXT, "The most tokens of the whole conversation.", lower_bound=2)


def check() -> None:
    models.check()


def main() -> None:
    door.decode_on_one_thread()
    talk = models.loaded().conversation(context=FLAGS.context, **models.settings())
    door.say(models.with_flags(talk.why))
    known = bundled.is_bundled(FLAGS.target)
    if sys.stdin.isatty():
        door.say("One message a line; the end of input (Ctrl-D) ends the conversation.")
    for line in sys.stdin:
        if message := line.strip():
            if known and (warning := bundled.warning(message, turn=len(talk.messages) // 2)):
                door.say(warning)
            answer = live.show(talk.say(message), door.colours())
            kept, prompted = talk.kept
            door.say(f"{transcript.numbers(answer)}; {kept} of {prompted} prompt tokens were in the cache\n")


if __name__ == "__main__":
    door.run(main)
