"""Chat prompts as text, for a harness that keeps its prompts as text."""

from collections.abc import Sequence

import jinja2

from specexit_jax.data.prompt_ids import without_system
from specexit_jax.data.tokenizer import prompt_text
from specexit_jax.engine.session import Session
from specexit_jax.engine.thinking import THINK

Turns = Sequence[dict[str, str]]  # {role, content}


def chat_text(session: Session, turns: Turns, reply: bool = True) -> str:
    """The chat prompt of a conversation, its thinking open whether or not the template opens it.

    reply: whether a new reply is asked for; else the last message is the beginning of a reply, which is continued
    without thinking. If the template has no system role, the system message is put before the first user message.
    """
    template = session.tokenizer.chat_template
    if not template:
        raise ValueError("This target's tokenizer has no chat template: leave out --apply_chat_template.")
    if "system" not in str(template):
        turns = without_system(turns)
    try:
        text = _rendered(session, turns, reply)
    except jinja2.TemplateError:  # some templates know the role and refuse it
        text = _rendered(session, without_system(turns), reply)
    if not reply or session.thinking is None:
        return text
    opened = session.thinking.is_open(session.tokenizer.encode(text, add_special_tokens=False))
    return text if opened else f"{text}{THINK}\n"


def _rendered(session: Session, turns: Turns, reply: bool) -> str:
    if reply:
        return prompt_text(session.tokenizer, turns)
    return session.tokenizer.apply_chat_template(list(turns), tokenize=False, continue_final_message=True)
