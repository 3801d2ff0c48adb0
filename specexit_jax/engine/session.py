"""A target's folder, and its draft's, loaded: weights, tokenizer, special token ids, sampling defaults, prompts."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from specexit_jax.data.tokenizer import has_tokenizer, load_tokenizer
from specexit_jax.decoding.loop.closing import closing_table
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.decoding.spec import DecodeParams
from specexit_jax.engine.generation_config import (
    max_new_tokens_of,
    read_defaults,
    sampling_of,
    tell_what_is_not_computed,
)
from specexit_jax.engine.thinking import END_THINK, THINK, Thinking, chat_prompt, find_thinking
from specexit_jax.exits.boundaries import Boundaries, make_boundaries
from specexit_jax.models.checkpoints.content import draft_digest, target_digest
from specexit_jax.models.checkpoints.drafts import in_checkpoint
from specexit_jax.models.checkpoints.hf import load_draft, load_target
from specexit_jax.models.checkpoints.hf_layout import on_device
from specexit_jax.models.checkpoints.hf_tensors import local_folder, read_json
from specexit_jax.models.config import DraftConfig, TargetConfig, check_pair
from specexit_jax.models.draft import signals_removed
from specexit_jax.notes import note
from specexit_jax.parallel.sharding import placer

BUILTIN = "builtin"  # as the name of a draft: the MTP layer in the target's own checkpoint
EMBEDDED = Path(__file__).parents[1] / "assets" / "embedded"


@dataclasses.dataclass(frozen=True, eq=False)
class Session:
    """A loaded target and draft, with all that requests have in common.

    tokenizer: None for a folder without one; its prompts are token ids. thinking: None for a model that does not think.
    token_texts: the text of every id of the model's vocabulary, "" for special tokens and for ids that the tokenizer does
    not know. target_digest, draft_digest: digests of the weights (`models.checkpoints.content`), which a policy.json names;
    None for weights that were not read from a folder. sampling, max_new_tokens: the target's defaults
    (generation_config.json). mesh: what the parameters are sharded over; None for one device. folder: the target's.
    """

    target: TargetConfig
    draft: DraftConfig | None
    params: DecodeParams
    tokenizer: Any
    token_texts: tuple[str, ...]
    stop_ids: tuple[int, ...]
    thinking: Thinking | None
    sampling: Sampling
    max_new_tokens: int
    draft_digest: str | None = None
    target_digest: str | None = None
    mesh: Mesh | None = None
    folder: Path | None = None

    @property
    def end_think_ids(self) -> tuple[int, ...]:
        """Token ids of `</think>`; () for a model that does not think."""
        return self.thinking.end if self.thinking else ()

    @functools.cached_property
    def opening(self) -> str | None:
        """The text of a chat prompt from its open `<think>` on; None without one."""
        if self.tokenizer is None or not self.tokenizer.chat_template:
            return None
        ids = chat_ids(self, "?")
        if not is_thinking(self, ids):
            return None
        text = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return THINK + text.rpartition(THINK)[2]

    def boundaries(self, kinds: Sequence[str] = ("paragraph",)) -> Boundaries:
        """The boundaries of these kinds in the target's vocabulary."""
        return make_boundaries(self.token_texts, kinds)


def load_session(
    target: str | Path,
    draft: str | Path | None = None,
    dtype: str = "float32",
    mesh: Mesh | None = None,
    draft_layer_ids: str | None = None,
    attention: str = "xla",
) -> Session:
    """Loads a target (a Hugging Face folder, or its name on the hub) and its draft, to be computed in `dtype`.

    mesh: what the parameters are sharded over, by the rules of `parallel.sharding`; None: all on one device.
    draft_layer_ids: what the draft's layer ids count, "inputs" or "outputs", where its file does not say. attention: of
    `TargetConfig`, for both models.
    Raises FileNotFoundError or ValueError, one sentence, on files that are missing or corrupt, or do not fit together.
    """
    target = local_folder(target, "target")
    config, params = load_target(target, dtype, placer(mesh) if mesh else on_device)
    tokenizer = load_tokenizer(target) if has_tokenizer(target) else None
    thinking = None if tokenizer is None else find_thinking(tokenizer)
    if tokenizer is not None and (known := _ids_of(tokenizer)) > config.vocab_size:
        thinking = _within(thinking, config.vocab_size)
        note(
            f"The tokenizer in {target} has {known} ids, but the model only {config.vocab_size}: prompts that hold one of "
            f"the others are refused{'' if thinking else ', and it is taken for a model that does not think'}."
        )
    texts = token_texts(tokenizer, config.vocab_size)
    several = thinking is not None and len(thinking.end) > 1  # then the ids of `</think>` depend on the text around it
    closing = jnp.asarray(closing_table(texts, END_THINK)) if several else None
    defaults = read_defaults(target)
    tell_what_is_not_computed(target, defaults)
    session = Session(
        target=dataclasses.replace(config, attention=attention),
        draft=None,
        params=DecodeParams(target=params, closing=closing),
        tokenizer=tokenizer,
        token_texts=texts,
        stop_ids=_stop_ids(target, tokenizer, defaults, config.vocab_size),
        thinking=thinking,
        sampling=sampling_of(defaults, target),
        max_new_tokens=max_new_tokens_of(defaults, target),
        mesh=mesh,
        target_digest=target_digest(target, config),
        folder=target,
    )
    if draft is None and in_checkpoint(target):
        note(f"{target} holds an MTP layer, of which plain decoding makes no use: the draft {BUILTIN!r} is that layer.")
    return session if draft is None else with_draft(session, draft, draft_layer_ids)


def with_draft(session: Session, folder: str | Path, layer_ids: str | None = None) -> Session:
    """The session with the draft of `folder`. Raises ValueError on a draft that was made for another target."""
    if str(folder) == BUILTIN:
        folder = builtin_folder(session)
    folder = local_folder(folder, "draft")
    embedding = session.params.target["embed"]["embedding"]
    place = placer(session.mesh) if session.mesh else on_device
    bundle = load_draft(folder, session.target.dtype, embedding, place, layer_ids, lambda: head_rows(session))
    target = bundle.config.reading(session.target)
    check_pair(bundle.config, target)
    return dataclasses.replace(
        session,
        target=target,
        draft=dataclasses.replace(bundle.config, attention=session.target.attention),
        params=session.params.replace(draft=bundle.params, d2t=jnp.asarray(bundle.d2t, jnp.int32)),
        draft_digest=draft_digest(folder, bundle.config),
    )


def builtin_folder(session: Session) -> Path:
    """The target's own folder. Raises ValueError where its checkpoint holds no MTP layer."""
    if session.folder is None or not in_checkpoint(session.folder):
        raise ValueError(
            f"{session.folder} holds no MTP layer, which the draft {BUILTIN!r} names: give a draft's folder."
        )
    return session.folder


def head_rows(session: Session) -> np.ndarray:
    """The target's head [V, D] on the host."""
    target = session.params.target
    return np.asarray(target["embed"]["embedding"] if session.target.tie_embeddings else target["lm_head"].T)


def without_signals(session: Session) -> Session:
    """The session with the signal outputs removed from its draft. The cost of signals is measured against it."""
    if session.draft is None or session.draft.signals == "none":
        raise ValueError("Only a draft with signals can be decoded without them: give one.")
    draft, params = signals_removed(session.draft, session.params.draft)
    return dataclasses.replace(session, draft=draft, params=session.params.replace(draft=params))


def chat_ids(session: Session, question: str | Sequence[dict[str, str]]) -> list[int]:
    """Token ids of the chat prompt of a question or conversation. Its thinking is open, by the template or after it."""
    if session.tokenizer is None or not session.tokenizer.chat_template:
        raise ValueError(
            "This target has no tokenizer with a chat template: give the prompt as token ids (prompt_ids=1,2,3)."
        )
    return chat_prompt(session.tokenizer, session.thinking, question)


def is_thinking(session: Session, ids: Sequence[int]) -> bool:
    """Whether a prompt leaves `<think>` open."""
    return session.thinking is not None and session.thinking.is_open(ids)


def close_thinking(session: Session, ids: Sequence[int]) -> list[int]:
    """The prompt with its open thinking closed (`nothink`)."""
    return list(ids) if session.thinking is None else session.thinking.close(ids)


def text_of(session: Session, ids: Sequence[int]) -> str:
    """Generated ids as text, with `</think>` and without the stop token; "" without a tokenizer."""
    if session.tokenizer is None:
        return ""
    ids = list(ids[:-1] if ids and ids[-1] in session.stop_ids else ids)
    return session.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _ids_of(tokenizer) -> int:
    """One more than the highest id of the tokenizer."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def _within(thinking: Thinking | None, vocab_size: int) -> Thinking | None:
    """The argument if all its ids are in the model's vocabulary, else None."""
    ids = () if thinking is None else thinking.start + thinking.end + thinking.open_suffix + thinking.closed_suffix
    return thinking if all(token < vocab_size for token in ids) else None


def token_texts(tokenizer: Any, vocab_size: int) -> tuple[str, ...]:
    """See `Session.token_texts`."""
    texts = [""] * vocab_size
    if tokenizer is None:
        return tuple(texts)
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    ids = sorted(token for token in tokenizer.get_vocab().values() if token < vocab_size and token not in special)
    for token, text in zip(
        ids, tokenizer.batch_decode([[i] for i in ids], clean_up_tokenization_spaces=False), strict=True
    ):
        texts[token] = text
    return tuple(texts)


def _stop_ids(folder: Path, tokenizer, defaults: dict, vocab_size: int) -> tuple[int, ...]:
    """All end-of-text ids of the generation config, else of the model's config, else of the tokenizer."""
    named = defaults.get("eos_token_id")
    if named is None:
        named = read_json(folder / "config.json").get("eos_token_id")
    if named is None and tokenizer is None:
        return ()
    if named is None:
        named = tokenizer.eos_token_id
    if named is None:
        raise ValueError(f"{folder} names no end-of-text token: set eos_token_id in its generation_config.json.")
    named = [int(token) for token in (named if isinstance(named, list) else [named])]
    known = tuple(token for token in named if 0 <= token < vocab_size)
    if named and not known:
        raise ValueError(
            f"{folder} names the end-of-text token {named[0]}, but the model's ids end at {vocab_size - 1}: set eos_token_id "
            "in its generation_config.json."
        )
    return known
