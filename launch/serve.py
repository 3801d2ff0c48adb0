"""Serves a model to any OpenAI client (docs/serving.md): /v1/chat/completions, /v1/completions, /v1/models, /metrics, and a page.

python -m launch.serve [--target=…] [--draft=…] [--policy=…] [--host=0.0.0.0] [--port=8000] [--slots=8] [--context=4096]
python -m launch.serve --config=configs/embedded.py --workdir=runs/embedded
Needs pip install "specexit-jax[serve]". SIGTERM finishes what was accepted.
"""

import time
from pathlib import Path

from absl import flags

from launch import bundled, configured, door, models
from specexit_jax.api.model import SLOTS
from specexit_jax.data.known_prompts import EXAMPLES
from specexit_jax.engine.conversation import CONTEXT
from specexit_jax.engine.lone_slots import LONE_ROW

FLAGS = flags.FLAGS
flags.DEFINE_string("host", "127.0.0.1", "Address to listen at; 0.0.0.0 for all of them.")
flags.DEFINE_integer("port", 8000, "Port to listen at; 0 for a free one.", lower_bound=0, upper_bound=65535)
flags.DEFINE_integer("slots", SLOTS, "Answers that are decoded at a time.", lower_bound=1)
flags.DEFINE_integer("context", CONTEXT, "The most tokens of a request, prompt and answer.", lower_bound=2)
flags.DEFINE_string(
    "name", None, "Name of the model; default: that of the target's folder, specexit for the bundled one."
)
flags.DEFINE_string(
    "api_key_file", None, "File with one key a line; who gives none of them is refused. Default: everybody is let in."
)
flags.DEFINE_integer("queue", 256, "Answers that may wait for a slot.", lower_bound=1)
flags.DEFINE_float("time_limit", 600.0, "Seconds that a request may take, its wait included.", lower_bound=0.001)
flags.DEFINE_integer("largest_body", 2**20, "Bytes of the largest request.", lower_bound=1)
flags.DEFINE_integer(
    "steps",
    4,
    "Iterations of the loop after which requests join and leave; up to 4 times as many where slots are full, or a request is alone "
    "and not streamed.",
    lower_bound=1,
)
flags.DEFINE_enum(
    "lone_row",
    "auto",
    LONE_ROW,
    "Decode a request that is the only one in a state of one row, several times as fast on a CPU. auto: in float32 on one device; "
    "in bfloat16 a token could depend on whether other requests came.",
)
flags.DEFINE_integer(
    "logprobs",
    5,
    "Likely tokens whose log-probabilities clients can ask for; 0: none are kept.",
    lower_bound=0,
    upper_bound=20,
)
_A_REQUESTS_OWN = ("seed", "exits", "rule", "epsilon", "thinking_budget")


def check() -> None:
    """Refuses a lack of packages, and flags that requests have of their own."""
    models.check()
    configured.check()
    if given := [name for name in _A_REQUESTS_OWN if FLAGS[name].present]:
        raise ValueError(f"--{given[0]} is a request's own: leave it out, and let clients give it.")
    if FLAGS.config is not None and (twice := [name for name in ("target", "draft", "policy") if FLAGS[name].present]):
        raise ValueError(
            f"--config names the {twice[0]} already: leave one of them out, or give --config.{twice[0]}=…."
        )


def keys() -> list[str]:
    """Those of --api_key_file. Raises ValueError on a file that holds none."""
    if FLAGS.api_key_file is None:
        return []
    found = [line.strip() for line in Path(FLAGS.api_key_file).read_text().splitlines() if line.strip()]
    if not found:
        raise ValueError(f"--api_key_file={FLAGS.api_key_file} holds no key: write one a line.")
    return found


def main() -> None:
    began = time.perf_counter()
    check()
    allowed = keys()
    from specexit_jax.serving.offer import Offer
    from specexit_jax.serving.server import Server, listener
    from specexit_jax.serving.service import Limits, Service

    at = listener(FLAGS.host, FLAGS.port)  # before what takes long
    model = models.loaded() if FLAGS.config is None else configured.model()
    target = FLAGS.target if FLAGS.config is None else door.config().target
    known = bundled.is_bundled(target)
    name = FLAGS.name or ("specexit" if known else Path(target).name)
    settings = {} if FLAGS.config is None else dict(door.config().get("sampling", {}))
    given = {key: value for key, value in models.settings().items() if key not in _A_REQUESTS_OWN and value is not None}
    examples = EXAMPLES if known else {}
    offer = Offer(model, name, FLAGS.context, FLAGS.slots, settings | given, examples, FLAGS.logprobs, FLAGS.lone_row)

    def warmed(seconds: float) -> None:
        told = f"{time.perf_counter() - began:.1f} s after the start, {seconds:.1f} s of them for its programs"
        door.say(f"ready at http://{FLAGS.host}:{at.getsockname()[1]} ({told})")

    limits = Limits(FLAGS.queue, FLAGS.time_limit, FLAGS.largest_body, FLAGS.steps)
    door.say(models.with_flags(offer.why))
    Server(Service(offer, limits, allowed, warmed)).run([at])


if __name__ == "__main__":
    door.define_config(required=False)
    door.run(main)
