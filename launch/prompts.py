"""--prompts=FILE: many prompts from a file of rows, in the formats in which the pipeline reads problems."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from launch import bundled, door, models, transcript
from specexit_jax.api.arguments import Prompt, check_prompt, is_ids
from specexit_jax.api.model import SLOTS, SpecExit
from specexit_jax.data.files import FORMATS, format_of, stream

COLUMNS = ("question", "prompt", "messages")  # one of them is a row's prompt
FORMS = 'with a column "question", "prompt" or "messages", and "id" if wanted'
KINDS = ", ".join(FORMATS)

FLAGS = flags.FLAGS
flags.DEFINE_string("prompts", None, f"File of prompts: rows {FORMS}. File types: {KINDS}.")
flags.DEFINE_integer("slots", SLOTS, "With --prompts: number of prompts that are decoded at a time.", lower_bound=1)
flags.DEFINE_bool("json", False, f"Print one JSON object for each prompt: {', '.join(transcript.KEYS)}.")


@dataclasses.dataclass(frozen=True)
class Rows:
    """The prompts of a file, and their ids: those in the file, or else the numbers of the rows, "0", "1", …"""

    prompts: list[Prompt]
    ids: list[str]


def check(path: str) -> None:
    """Refuses a file type that cannot be read."""
    if format_of(path) is None:
        raise ValueError(f"--prompts reads {KINDS}, but it is {path}.")


def read(path: str) -> Rows:
    """The rows of a file. Other columns are ignored. Raises FileNotFoundError, or ValueError with the number of the row."""
    check(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"--prompts: there is no file {path}.")
    rows = Rows([], [])
    for number, row in enumerate(stream(path, "", ""), start=1):
        rows.prompts.append(_prompt_of(path, number, row))
        rows.ids.append(str(number - 1) if row.get("id") in (None, "") else str(row["id"]))
    if not rows.prompts:
        raise ValueError(f"{path} holds no row: give rows {FORMS}.")
    twice = (
        next((name for name in rows.ids if rows.ids.count(name) > 1), None)
        if len(set(rows.ids)) < len(rows.ids)
        else None
    )
    if twice is not None:
        raise ValueError(
            f"{path}: the id {twice!r} stands twice: ids are unique, since a request's noise depends on its own."
        )
    return rows


def answer(model: SpecExit, rows: Rows, tell: Callable[[str], None]) -> None:
    """Shows every row's answer, in the order of the file; tell: says which method decodes, and what the model knows."""
    settings, colours = models.settings(), door.colours()
    plan = model.plan(rows.prompts[0], **settings)
    tell(models.with_flags(f"method {plan.method}: {plan.why}"))
    if bundled.is_bundled(FLAGS.target) and (warning := bundled.warning_of_many(rows.prompts)):
        tell(warning)
    for found in model.answers(rows.prompts, slots=FLAGS.slots, ids=rows.ids, **settings):
        if FLAGS.json:
            door.say(transcript.as_json(found))
        else:
            title = transcript.styled(f"═══ {found.id} ═══", transcript.BOLD, colours)
            door.say(f"{title}\n\n{transcript.text(found, colours)}\n")


def _prompt_of(path: str, number: int, row: dict[str, Any]) -> Prompt:
    named = [name for name in COLUMNS if row.get(name) not in (None, "", [])]
    if len(named) != 1:
        what = f"{' and '.join(named)}, of which it needs one alone" if named else f"no prompt: give rows {FORMS}"
        raise ValueError(f"{path}: row {number} has {what}.")
    prompt = row[named[0]]
    try:
        if named[0] == "messages" and (isinstance(prompt, str) or is_ids(prompt)):
            raise ValueError("messages are a list of {'role': …, 'content': …}.")
        check_prompt(prompt)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: row {number}, column {named[0]!r}: {error}") from None
    return prompt
