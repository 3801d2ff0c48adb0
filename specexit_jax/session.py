"""A model folder (and a draft's) made ready to run: weights, tokenizer, token ids that matter, sampling, prompts."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from specexit_jax.data.tokenizer import load_tokenizer, prompt_text
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.decoding.state import DecodeParams
from specexit_jax.exits.boundaries import Boundaries, make_boundaries
from specexit_jax.exits.policy_file import digest
from specexit_jax.models.config import DraftConfig, TargetConfig, check_pair
from specexit_jax.models.hf import load_draft, load_target
from specexit_jax.models.hf_tensors import WEIGHTS, read_json

EMBEDDED = Path(__file__).parent / "assets" / "embedded"
THINK, END_THINK = "<think>", "</think>"
NEW_TOKENS = 4096  # generated at most where neither the caller nor generation_config.json says


@dataclasses.dataclass(frozen=True, eq=False)
class Session:
    """What every request of a process shares.

    token_texts: the decoded text of every id of the model's vocabulary, "" for special tokens and for ids that the
    tokenizer does not know. draft_digest: what a policy.json made for this draft carries. sampling and max_new_tokens
    are the target's own defaults (generation_config.json).
    """

    target: TargetConfig
    draft: DraftConfig | None
    params: DecodeParams
    tokenizer: Any
    token_texts: tuple[str, ...]
    stop_ids: tuple[int, ...]
    think_id: int
    end_think_ids: tuple[int, ...]
    sampling: Sampling
    max_new_tokens: int
    draft_digest: str | None = None

    def boundaries(self, kinds: Sequence[str] = ("paragraph",)) -> Boundaries:
        return make_boundaries(self.token_texts, kinds)


def load_session(target: str | Path, draft: str | Path | None = None, dtype: str = "float32") -> Session:
    """A target's Hugging Face folder, and its draft's, ready to run in `dtype`.

    Raises FileNotFoundError or ValueError, one sentence each, on what is missing, corrupt or does not fit together.
    """
    target = Path(target)
    if not target.is_dir():
        raise FileNotFoundError(f"{target} is not a folder: give the folder of a target model.")
    config, params = load_target(target, dtype)
    tokenizer = load_tokenizer(target)
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"The tokenizer in {target} has {len(tokenizer)} tokens, but the model only {config.vocab_size}: "
            "they do not belong together."
        )
    defaults = _generation_defaults(target)
    session = Session(
        target=config,
        draft=None,
        params=DecodeParams(target=params),
        tokenizer=tokenizer,
        token_texts=_token_texts(tokenizer, config.vocab_size),
        stop_ids=_stop_ids(target, tokenizer, defaults),
        think_id=_think_id(target, tokenizer),
        end_think_ids=tuple(tokenizer.encode(END_THINK, add_special_tokens=False)),
        sampling=_sampling(defaults),
        max_new_tokens=defaults.get("max_new_tokens") or NEW_TOKENS,
    )
    return session if draft is None else with_draft(session, draft)


def with_draft(session: Session, folder: str | Path) -> Session:
    """The same session with the draft of `folder`; refuses one that was made for another target."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: give the folder of a draft model.")
    embedding = session.params.target["embed"]["embedding"]
    bundle = load_draft(folder, session.target.dtype, embedding)
    check_pair(bundle.config, session.target)
    return dataclasses.replace(
        session,
        draft=bundle.config,
        params=DecodeParams(session.params.target, bundle.params, jnp.asarray(bundle.d2t, jnp.int32)),
        draft_digest=digest(Path(folder) / WEIGHTS),
    )


def without_signals(session: Session) -> Session:
    """The session with its draft's signal rows cut out of `fc`: what the cost of signals is measured against."""
    if session.draft is None or session.draft.signals != "fc":
        raise ValueError("Only a draft whose signals are placed at 'fc' can be cut free of them: give one.")
    params = session.params.draft
    cut = params | {"fc": params["fc"][:, : session.draft.hidden_size]}
    draft = dataclasses.replace(session.draft, signals="none")
    return dataclasses.replace(session, draft=draft, params=session.params.replace(draft=cut))


def chat_ids(session: Session, question: str) -> list[int]:
    """The chat prompt of one question with its thinking open, whether or not the template opens it."""
    text = prompt_text(session.tokenizer, question)
    ids = session.tokenizer.encode(text, add_special_tokens=False)
    if is_thinking(session, ids):
        return ids
    return ids + session.tokenizer.encode(f"{THINK}\n", add_special_tokens=False)


def is_thinking(session: Session, ids: Sequence[int]) -> bool:
    """Whether a prompt leaves `<think>` open."""
    after = _after_think(session, ids)
    return after is not None and _find(after, session.end_think_ids) is None


def close_thinking(session: Session, ids: Sequence[int]) -> list[int]:
    """The prompt with its open thinking closed at once (`nothink`): an exit before the first token of thought."""
    return [*ids, *session.end_think_ids] if is_thinking(session, ids) else list(ids)


def text_of(session: Session, ids: Sequence[int]) -> str:
    """Generated ids as text: `</think>` is kept, the stop token is not."""
    ids = list(ids[:-1] if ids and ids[-1] in session.stop_ids else ids)
    return session.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _after_think(session: Session, ids: Sequence[int]) -> list[int] | None:
    """The ids after the last `<think>`; None without one."""
    ids = [int(token) for token in ids]
    if session.think_id not in ids:
        return None
    return ids[len(ids) - ids[::-1].index(session.think_id) :]


def _find(ids: Sequence[int], pattern: Sequence[int]) -> int | None:
    starts = range(len(ids) - len(pattern) + 1)
    return next((start for start in starts if tuple(ids[start : start + len(pattern)]) == tuple(pattern)), None)


def _think_id(folder: Path, tokenizer) -> int:
    ids = tokenizer.encode(THINK, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(f"The tokenizer in {folder} has no token {THINK}: this is not a reasoning model.")
    return ids[0]


def _token_texts(tokenizer, vocab_size: int) -> tuple[str, ...]:
    special, known = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}, len(tokenizer)
    texts = tokenizer.batch_decode([[token] for token in range(known)], clean_up_tokenization_spaces=False)
    return tuple("" if token in special else text for token, text in enumerate(texts)) + ("",) * (vocab_size - known)


def _generation_defaults(folder: Path) -> dict:
    path = folder / "generation_config.json"
    return read_json(path) if path.is_file() else {}


def _stop_ids(folder: Path, tokenizer, defaults: dict) -> tuple[int, ...]:
    """Every end token named by the generation config, else by the model's config, else by the tokenizer."""
    named = defaults.get("eos_token_id")
    if named is None:
        named = read_json(folder / "config.json").get("eos_token_id")
    if named is None:
        named = tokenizer.eos_token_id
    if named is None:
        raise ValueError(f"{folder} names no end-of-text token: set eos_token_id in its generation_config.json.")
    return tuple(int(token) for token in (named if isinstance(named, list) else [named]))


def _sampling(defaults: dict) -> Sampling:
    """How the model wants to be sampled; greedy where it does not say. A filter it does not name is off."""
    if not defaults.get("do_sample", "temperature" in defaults):
        return Sampling()
    return Sampling(
        temperature=float(defaults.get("temperature", 1.0)),
        top_k=int(defaults.get("top_k") or 0),
        top_p=float(defaults.get("top_p") or 1.0),
    )
