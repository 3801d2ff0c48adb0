"""The model class of lm-evaluation-harness for a session and a method: generate-until tasks and log-likelihoods.

Importing this module registers the class as "specexit". Needs lm-eval, which nothing else does.
"""

import collections
import logging
from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import has_bos_prefix
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, simple_parse_args_string

from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.binding import uncovered
from specexit_jax.engine.generate import decode_prepared
from specexit_jax.engine.methods import Method
from specexit_jax.engine.outcomes import Outcome
from specexit_jax.engine.placement import Auto, Placement, told_rows
from specexit_jax.engine.preparing import prepare_fitting
from specexit_jax.engine.requests import PreparedRequest, Request
from specexit_jax.engine.session import Session, close_thinking, is_thinking
from specexit_jax.evaluation.lm_eval.chat import chat_text
from specexit_jax.evaluation.lm_eval.generation import Generation, answer_of, generation_of
from specexit_jax.evaluation.lm_eval.loglikelihood import scores
from specexit_jax.evaluation.lm_eval.open import opened
from specexit_jax.evaluation.lm_eval.report import decoding_numbers
from specexit_jax.evaluation.report.publish import provenance
from specexit_jax.exits.policy_file import PolicyFile
from specexit_jax.monitoring.progress import Progress
from specexit_jax.notes import note


@register_model("specexit")
class SpecExitLM(TemplateLM):
    """A session and a method as lm-eval's model.

    temperature, max_gen_toks: override the tasks' values, see `generation_of`; keep_thinking: see `answer_of`. A
    request's noise depends only on seed, task, document and repeat: not on --limit, the batch or the method.
    batch_size: rows that are decoded at a time, and scored; of `Auto`, which is for decoding, one is scored at a time.
    policy_file: the method's policy; generations that it was not made for are reported, or refused (strict_policy).
    outcomes: of every task, in the order of completion.
    """

    def __init__(
        self,
        session: Session,
        method: Method,
        *,
        batch_size: int | Auto = 1,
        seed: int = 0,
        temperature: float | None = None,
        max_gen_toks: int | None = None,
        keep_thinking: bool = False,
        policy_file: PolicyFile | None = None,
        strict_policy: bool = False,
    ):
        super().__init__()
        if session.tokenizer is None:
            raise ValueError("This target has no tokenizer, and lm-eval's prompts are text.")
        self.session, self.method, self.tokenizer = session, method, session.tokenizer
        self.batch_size, self.seed = batch_size, seed
        self.temperature, self.max_gen_toks, self.keep_thinking = temperature, max_gen_toks, keep_thinking
        self.policy_file, self.strict_policy = policy_file, strict_policy
        self.outcomes: dict[str, list[Outcome]] = collections.defaultdict(list)

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None):
        """From lm-eval's --model_args, those of `opened`; of its own options --batch_size counts, devices are JAX's."""
        asked = {"batch_size": (additional_config or {}).get("batch_size") or 1} | arg_dict
        session, method, settings = opened(**asked)
        return cls(session, method, **settings)

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict | None = None):
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @property
    def eot_token_id(self) -> int:
        return self.session.stop_ids[0]

    @property
    def prefix_token_id(self) -> int:
        """The token before a text that has no context."""
        start = self.tokenizer.bos_token_id
        return self.eot_token_id if start is None else start

    @property
    def max_length(self) -> int:
        return self.session.target.max_position

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer.name_or_path.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs) -> list[int]:
        """A prompt's ids; a chat prompt that begins with the beginning-of-text token is not given a second one."""
        if add_special_tokens is None:
            add_special_tokens = not has_bos_prefix(string, self.tokenizer.bos_token)
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """See `chat_text`; without a generation prompt the last message is the beginning of the reply (`gen_prefix`)."""
        return chat_text(self.session, chat_history, reply=add_generation_prompt)

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answers in the order of the requests, each cached as soon as it is there; every prompt is checked first. One that
        fills the context has the answer ""."""
        generations = [
            generation_of(self.session, instance.args[1], self.temperature, self.max_gen_toks) for instance in requests
        ]
        asked = self._requests(requests, generations)
        prepared, unanswered = prepare_fitting(self.session, asked, self.method)
        self._warn_of_closed(asked)
        groups: dict[tuple, list[PreparedRequest]] = {(one.sampling, one.most): [] for one in generations}
        for sampling, most in groups:
            self._require_covered(sampling, most)
        for request in prepared.requests:
            groups[request.sampling, request.max_new_tokens].append(request)
        place_of = {request.id: place for place, request in enumerate(asked)}
        for outcome in unanswered:
            self.outcomes[str(requests[place_of[outcome.id]].task_name)].append(outcome)
        answers, bar, done = [""] * len(asked), Progress(len(asked), "generate_until "), len(unanswered)
        placement = Placement(self.batch_size, in_order=False)
        for own in groups.values():
            for outcome in decode_prepared(prepared.only(own), placement):
                place, done = place_of[outcome.id], done + 1
                answers[place] = answer_of(self.session, outcome, generations[place].until, self.keep_thinking)
                self.outcomes[str(requests[place].task_name)].append(outcome)
                self.cache_hook.add_partial("generate_until", requests[place].args, answers[place])
                if not disable_tqdm:
                    bar.update(done)
        return answers

    def _requests(self, instances: Sequence[Instance], generations: Sequence[Generation]) -> list[Request]:
        asked, seen = [], collections.Counter()
        for instance, one in zip(instances, generations, strict=True):
            name = f"{instance.task_name}/{instance.doc_id}"
            repeat, seen[name] = seen[name], seen[name] + 1
            ids = self.tok_encode(instance.args[0]) or [self.prefix_token_id]
            named = f"{name}/sample-{repeat}" if repeat else name
            asked.append(Request(named, tuple(ids), self.seed, one.sampling, one.most))
        return asked

    def _warn_of_closed(self, asked: Sequence[Request]) -> None:
        """Warns if no prompt opens its thinking: a method can exit only in open thinking."""
        exits = self.method.closes_thinking or self.method.policy.exits
        if exits and not any(is_thinking(self.session, request.prompt_ids) for request in asked):
            text = "No prompt opens its thinking, so %r never ends it: give --apply_chat_template."
            logging.getLogger(__name__).warning(text, self.method.name)

    def _require_covered(self, sampling: Sampling, most: int) -> None:
        """Reports generations that the policy was not made for; raises ValueError under strict_policy."""
        if self.policy_file is None:
            return
        sentence = uncovered(self.policy_file, self.session, "the policy", sampling, most)
        if sentence and self.strict_policy:
            raise ValueError(f"{sentence} (strict_policy)")
        if sentence:
            note(sentence)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Ids of both. Raises ValueError where the context leaves its thinking open, which no answer could follow at once;
        `nothink` closes it."""
        ids = self.tok_encode(context)
        if not is_thinking(self.session, ids):
            return super()._encode_pair(context, continuation)
        if not self.method.closes_thinking:
            raise ValueError(
                "Log-likelihoods are of an answer that follows its prompt at once, but the chat template opens the "
                "thinking: take method=nothink, or leave out --apply_chat_template."
            )
        return close_thinking(self.session, ids), self.tok_encode(continuation, add_special_tokens=False)

    def _loglikelihood_tokens(self, requests, disable_tqdm: bool = False, **_) -> list[tuple[float, bool]]:
        """Log-likelihoods of the target, whatever the method."""
        pairs = [(context, continuation) for _, context, continuation in requests]
        found: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
        bar = Progress(len(pairs), "loglikelihood ")
        rows = 1 if isinstance(self.batch_size, Auto) else self.batch_size
        for done, (place, *score) in enumerate(scores(self.session, pairs, rows), start=1):
            found[place] = tuple(score)
            if requests[place][0] is not None:  # a window of a longer text has no key
                self.cache_hook.add_partial("loglikelihood", requests[place][0], found[place])
            if not disable_tqdm:
                bar.update(done)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihoods of whole texts, in windows of the target's context; each token is predicted once."""
        found = []
        for instance in requests:
            (text,) = instance.args
            ids = self.tok_encode(text, add_special_tokens=False)
            windows = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, context_len=1)
            pairs = [(None, *make_disjoint_window(window)) for window in windows]
            found.append(sum(log for log, _ in self._loglikelihood_tokens(pairs, disable_tqdm=True)))
            self.cache_hook.add_partial("loglikelihood_rolling", instance.args, found[-1])
        return found

    def get_model_info(self) -> dict[str, Any]:
        """The entry in the `config` of lm-eval's results: the settings of decoding, and its numbers by task."""
        return {
            "specexit": {
                "method": self.method.name,
                "draft_tokens": self.method.draft_tokens,
                "draft": self.session.draft_digest,
                "batch_size": told_rows(self.batch_size),
                "seed": self.seed,
                "temperature": self.temperature,
                "max_gen_toks": self.max_gen_toks,
                "keep_thinking": self.keep_thinking,
                "tasks": {task: decoding_numbers(outcomes) for task, outcomes in self.outcomes.items()},
                **provenance(),
            }
        }
