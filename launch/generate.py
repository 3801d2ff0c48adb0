"""Answers a prompt, with dimmed thinking, the exit and what it saved. Or answers many prompts from a file.

python -m launch.generate --example=chain_sum    # an example question of the bundled model
python -m launch.generate --target=FOLDER --draft=FOLDER --prompt="What is 12 + 30 - 4?"
python -m launch.generate --prompts=FILE.jsonl --json > answers.jsonl    # rows {"question": …}; answers in the order of the file
The first line says which method decodes, and why (on standard error with --json and --stream). With --stream into a pipe or file,
standard output has only the model's text.
"""

import sys

from absl import flags

from launch import bundled, door, live, models, prompts, transcript
from specexit_jax.api.arguments import Prompt
from specexit_jax.api.model import SpecExit
from specexit_jax.data.known_prompts import EXAMPLES

FLAGS = flags.FLAGS
flags.DEFINE_string("prompt", None, "Question to answer.")
flags.DEFINE_list("prompt_ids", None, "Instead of --prompt: the whole prompt as token ids, for example 1,2,3.")
flags.DEFINE_enum(
    "example", None, list(EXAMPLES), "Instead of --prompt: an example question of this task of the bundled model."
)
flags.DEFINE_bool(
    "compare",
    True,
    "After an exit, decode the same request without exits and show what was saved; for one prompt, shown as text.",
)
flags.DEFINE_bool("stream", False, "Show the text while it is decoded; on a terminal with a meter for each signal.")
_SOURCES = ("prompt", "prompt_ids", "example", "prompts")


def main() -> None:
    door.decode_on_one_thread()
    prompt = check()
    rows = prompts.read(FLAGS.prompts) if FLAGS.prompts else None
    model = models.loaded()
    tell = door.aside if FLAGS.json or FLAGS.stream else door.say
    if rows is not None:
        prompts.answer(model, rows, tell)
        return
    plan = model.plan(prompt, **models.settings())
    tell(models.with_flags(f"method {plan.method}: {plan.why}"))
    if FLAGS.example:
        tell(f"prompt: {prompt}")
    if isinstance(prompt, str) and bundled.is_bundled(FLAGS.target) and (warning := bundled.warning(prompt)):
        tell(warning)
    if FLAGS.stream:
        stream(model, prompt)
        return
    answer = model.generate(prompt, **models.settings())
    if FLAGS.json:
        door.say(transcript.as_json(answer))
        return
    door.say(transcript.text(answer, door.colours()))
    if answer.exit is not None and FLAGS.compare:
        # By the same program: nothing is compiled.
        longer = model.generate(prompt, **models.settings() | {"exits": False, "epsilon": None})
        door.say(transcript.saved(answer, longer))


def stream(model: SpecExit, prompt: Prompt) -> None:
    """Prints the text while it is decoded. If standard output is no terminal, the numbers go to standard error."""
    terminal = on_terminal()
    answer = live.show(model.stream(prompt, **models.settings()), door.colours(), meters=terminal)
    (door.say if terminal else door.aside)(transcript.numbers(answer))


def on_terminal() -> bool:
    return sys.stdout.isatty()


def check() -> Prompt | None:
    """The prompt; None with --prompts. Refuses flags that exclude each other, and an empty prompt."""
    models.check()
    if len([name for name in _SOURCES if FLAGS[name].value is not None]) != 1:
        raise ValueError("Give one of --prompt=TEXT, --prompt_ids=1,2,3, --example=TASK and --prompts=FILE.")
    if FLAGS.stream and FLAGS.json:
        raise ValueError("Give either --stream or --json.")
    if FLAGS.prompts is not None:
        if FLAGS.stream:
            raise ValueError(
                "--stream shows one prompt: give --prompt=TEXT instead of --prompts, or leave --stream out."
            )
        return prompts.check(FLAGS.prompts)
    if FLAGS.prompt_ids is not None:
        return list(door.whole_numbers("prompt_ids", FLAGS.prompt_ids))
    prompt = EXAMPLES[FLAGS.example] if FLAGS.example else FLAGS.prompt
    if not prompt.strip():
        raise ValueError("--prompt is empty: give a question.")
    return prompt


if __name__ == "__main__":
    door.run(main)
