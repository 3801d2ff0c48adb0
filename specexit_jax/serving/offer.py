"""The model as it is served: its name, the methods of its one program, and requests as that program takes them."""

import dataclasses
import secrets
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from specexit_jax.api.arguments import Settings
from specexit_jax.api.calls import Call, prompt_ids
from specexit_jax.api.model import SpecExit
from specexit_jax.data.prompt_ids import without_system
from specexit_jax.engine.lone_slots import LoneSlots, lone_row_for
from specexit_jax.engine.requests import PreparedRequests
from specexit_jax.engine.slots import Slots, slots_for
from specexit_jax.engine.specs import spec_for
from specexit_jax.exits.boundaries import Boundaries
from specexit_jax.exits.frontier_file import CertifiedRisk
from specexit_jax.exits.signals import SIGNALS, named
from specexit_jax.serving.engine_loop import Job
from specexit_jax.serving.fields import Asked
from specexit_jax.serving.refusals import Refused

NOTHINK = "nothink"
LOGPROBS = 5
ID = "generate"  # of the first answer, as of `SpecExit.generate`; the others are generate/1, generate/2, …


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """One answer that is asked for. method: its name. job: what decodes it."""

    number: int
    method: str
    call: Call
    job: Job


class Offer:
    """context: the most tokens of a request, prompt included. settings: of requests that do not say; the method is that of the
    program, by default as `SpecExit.generate` chooses it. examples: questions of the bundled model by their task. logprobs: most
    likely tokens whose log-probabilities are kept beside those of the written ones; 0: none. lone_row: see `lone_row_for`."""

    def __init__(
        self,
        model: SpecExit,
        name: str,
        context: int,
        slots: int,
        settings: Settings | None = None,
        examples: Mapping[str, str] | None = None,
        logprobs: int = LOGPROBS,
        lone_row: str = "auto",
    ):
        self.session, self.name, self.created = model.session, name, int(time.time())
        self.context, self.size = min(context, model.session.target.max_position), slots
        self.lone_row = lone_row_for(lone_row, self.session, slots)
        self.logprobs = min(logprobs, model.session.target.vocab_size)
        self.examples, self._methods = dict(examples or {}), model.methods
        self._settings = {key: value for key, value in (settings or {}).items() if value is not None}
        self._choice, self._method = self._methods.named(self._settings.pop("method", None))
        self.default = self._method.name
        self._table = _on_host(self._method.boundaries) if self._method.policy.exits else None
        self._longest = max(map(len, self.session.token_texts), default=0)
        self._no_system = "system" not in str(getattr(self.session.tokenizer, "chat_template", None))

    @property
    def methods(self) -> tuple[str, ...]:
        """Their names, the default first. Those without exits are the default's program, whose exits are not taken."""
        others = ("eagle3", "think") if self._method.draft_tokens else ("think",)
        closed = () if self.session.thinking is None else (NOTHINK,)
        return tuple(dict.fromkeys((self.default, *others, *closed)))

    @property
    def why(self) -> str:
        """The default method, and how it was chosen."""
        return self._choice.line

    @property
    def boundaries(self) -> Boundaries | None:
        """The boundaries that exits can be taken at, as numpy arrays; None where none is."""
        return self._table

    def open_slots(self) -> Slots | LoneSlots:
        spec = spec_for(self.session, self._method, self.context, own_rules=True, logprobs=self.logprobs)
        slots = slots_for(self.session, self._method, spec, self.size)
        return LoneSlots(slots) if self.lone_row else slots

    def choices(self, asked: Asked) -> list[Choice]:
        """The answers that are asked for, checked and prepared. Raises Refused."""
        if asked.model not in (None, self.name):
            raise Refused(
                404, f"There is no model {asked.model[:80]!r}: this is {self.name!r}.", "model", "model_not_found"
            )
        self._check_logprobs(asked)
        name = asked.method or self.default
        if name not in self.methods:
            told = f"There is no method {name[:80]!r} here: choose among {', '.join(self.methods)}."
            raise Refused(400, told, "specexit.method")
        call = self._call(name, asked)
        prompt = self._prompt(asked)
        found = []
        for number in range(asked.choices):
            prepared = self._prepared(
                call, prompt, f"{ID}/{number}" if number else ID, "messages" if asked.chat else "prompt"
            )
            (request,) = prepared.requests
            taken = request.in_buffer(self.context, None if call.risk is None else call.risk.policy.thresholds)
            found.append(Choice(number, name, call, Job(prepared, taken, asked.stream or bool(asked.stop))))
        return found

    def _check_logprobs(self, asked: Asked) -> None:
        if asked.logprobs is None or 0 < self.logprobs >= asked.logprobs:
            return
        kept = f"only of {self.logprobs} likely tokens" if self.logprobs else "none"
        param = "top_logprobs" if asked.chat and asked.logprobs else "logprobs"
        raise Refused(400, f"{param}: log-probabilities are kept here, but {kept} (--logprobs of the server).", param)

    def _call(self, name: str, asked: Asked) -> Call:
        settings = {"seed": secrets.randbits(31)} | self._settings | asked.settings
        if "epsilon" in settings and (name != self.default or not self._method.policy.exits):
            raise Refused(400, f"specexit.epsilon is the risk of exits, and {name} takes none.", "specexit.epsilon")
        own = settings | {"method": self.default, "exits": name == self.default}
        try:
            call = self._methods.call(own, tell=lambda sentence: None)
        except ValueError as error:
            raise Refused(400, str(error), "specexit.epsilon" if "epsilon" in settings else "specexit") from None
        if name == self.default:
            return call
        method = dataclasses.replace(call.method, name=name, closes_thinking=name == NOTHINK)
        return dataclasses.replace(call, method=method)

    def _prompt(self, asked: Asked) -> list[int]:
        """The prompt's token ids. Raises Refused on one that cannot fit, before it is encoded."""
        param = "messages" if asked.chat else "prompt"
        # What templates leave out of earlier replies does not count.
        own = (
            [turn["content"] for turn in asked.prompt if turn["role"] != "assistant"] if asked.chat else [asked.prompt]
        )
        letters = sum(map(len, own))
        if asked.chat or isinstance(asked.prompt, str):
            if self.session.tokenizer is None:
                raise Refused(400, "This model has no tokenizer: give /v1/completions token ids.", param)
            if letters > self.context * self._longest:
                raise self._too_long(param, f"at least {letters // self._longest}")
        if not asked.chat:
            return asked.prompt if isinstance(asked.prompt, list) else self.session.tokenizer.encode(asked.prompt)
        turns = without_system(asked.prompt) if self._no_system else asked.prompt
        try:
            return list(prompt_ids(self.session, turns))
        except ValueError as error:
            raise Refused(400, str(error), param) from None

    def _prepared(self, call: Call, prompt: list[int], name: str, param: str) -> PreparedRequests:
        try:
            prepared = call.prepared([prompt], [name])
        except (ValueError, TypeError) as error:
            raise Refused(400, str(error), param) from None
        length = len(prepared.requests[0].prompt_ids)
        if length >= self.context:
            raise self._too_long(param, str(length))
        return prepared

    def _too_long(self, param: str, length: str) -> Refused:
        told = f"The prompt has {length} tokens, which leave no room in the context of {self.context}: shorten it."
        return Refused(400, told, param, "context_length_exceeded")

    def told(self) -> dict[str, Any]:
        """The entry of /v1/models."""
        policy = self._method.policy
        sampling = {
            key: self._settings.get(key, value) for key, value in dataclasses.asdict(self.session.sampling).items()
        }
        risks = self._methods.risks(self.default)
        own = {
            "methods": list(self.methods),
            "default": self.default,
            "context": self.context,
            "max_tokens": self._settings.get("max_new_tokens", self.session.max_new_tokens),
            "drafts": self._method.draft_tokens,
            "slots": self.size,
            "logprobs": self.logprobs,
            "sampling": sampling,
            "signals": {name: _signal(name) for name in policy.signals},
            "epsilons": [_certified(risk) for risk in risks],
            "examples": self.examples,
        }
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "specexit_jax",
            "specexit": own,
        }


def limiting(thresholds: dict[str, float]) -> dict[str, float]:
    """Those of the thresholds that can refuse an exit."""
    return {name: limit for name, limit in thresholds.items() if SIGNALS[name].can_refuse(limit)}


def _certified(risk: CertifiedRisk) -> dict[str, Any]:
    held, limits = risk.policy.certificate, named(risk.policy.thresholds, risk.policy.signals)
    names = ("epsilon", "delta", "risk_upper", "harmed", "problems", "split")
    told = {name: getattr(held, name) for name in names}
    return told | {"tokens_ratio": risk.tokens_ratio, "thresholds": limiting(limits)}


def _signal(name: str) -> dict[str, Any]:
    signal = SIGNALS[name]
    return {"meaning": signal.meaning, "colour": signal.colour, "at_least": signal.at_least, "full": signal.scale.full}


def _on_host(table: Boundaries) -> Boundaries:
    return Boundaries(*(np.asarray(own) for own in (table.always, table.before, table.after)))
