"""One call of the API: its method, policy, sampling and length are resolved, its prompts prepared, and the engine run."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import jinja2

from specexit_jax.api import arguments, reading
from specexit_jax.api.answer import Answer, ExitPolicy, Piece, Plan
from specexit_jax.api.arguments import Prompt, Settings
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.engine.choice import Choice, choose
from specexit_jax.engine.generate import decode_prepared
from specexit_jax.engine.methods import EXITING, Method, make_method, policy_file
from specexit_jax.engine.placement import Placement
from specexit_jax.engine.preparing import prepare
from specexit_jax.engine.requests import DecodeSettings, PreparedRequests, Request
from specexit_jax.engine.session import Session, chat_ids
from specexit_jax.engine.streaming import stream_pieces
from specexit_jax.notes import note


@dataclasses.dataclass(frozen=True)
class Exits:
    """The arguments of `SpecExit.load` that concern drafts and exits."""

    draft: str | Path | None
    policy: str | Path | None
    exit_rule: str | None
    smoother: str | None
    draft_tokens: int
    tree: TreeShape | None
    strict_policy: bool


class Methods:
    """The methods of one loaded model. Each is made when it is first used."""

    def __init__(self, session: Session, exits: Exits):
        self._session, self._exits = session, exits
        self._made: dict[str | None, tuple[Choice, Method]] = {}

    def named(self, name: str | None) -> tuple[Choice, Method]:
        """The method called `name`, and why it was chosen. None: the default, which depends on the draft and its policy."""
        if name not in self._made:
            exits = self._exits
            choice = choose(self._session, exits.draft, name, exits.policy, exits.exit_rule, exits.smoother)
            drafts = {"draft_tokens": exits.draft_tokens, "tree": exits.tree}
            self._made[name] = choice, make_method(self._session, choice.name, choice.policy, choice.kinds, **drafts)
        return self._made[name]

    def call(self, settings: Settings) -> "Call":
        """Resolves checked settings. Raises ValueError on a method that needs more than this model has, and under
        strict_policy on settings that the policy was not made for."""
        choice, method = self.named(settings.get("method"))
        own = {name: settings[name] for name in arguments.SAMPLED if name in settings}
        sampling = dataclasses.replace(self._session.sampling, **own)
        length = settings.get("max_new_tokens", self._session.max_new_tokens)
        exits = settings.get("exits", True)
        policy = self._policy(choice, sampling, length) if exits else None
        if policy is not None and policy.uncovered is not None:
            if self._exits.strict_policy:
                raise ValueError(f"{policy.uncovered} (strict_policy refuses it)")
            note(policy.uncovered)
        return Call(self._session, choice, method, policy, sampling, length, settings.get("seed", 0), exits)

    def _policy(self, choice: Choice, sampling: Sampling, length: int) -> ExitPolicy | None:
        if choice.name not in EXITING:
            return None
        exits, session = self._exits, self._session
        file = choice.path and policy_file(session, choice.path, exits.exit_rule, exits.smoother)
        return reading.policy_of(file, session, choice.path, sampling, length, exits.smoother, exits.exit_rule)


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """What all requests of one call share."""

    session: Session
    choice: Choice
    method: Method
    policy: ExitPolicy | None
    sampling: Sampling
    max_new_tokens: int
    seed: int
    exits: bool

    @property
    def why(self) -> str:
        """How the method was chosen, in words, and whether its exits are taken."""
        if self.exits or not self.method.policy.exits:
            return self.choice.why
        return f"{self.choice.why}, but no exit is taken (exits=False)"

    def prepared(
        self, prompts: Sequence[Prompt], ids: Sequence[str], record_signals: bool = False, logprobs: int = 0
    ) -> PreparedRequests:
        """The requests of these prompts, checked and ready to decode. Raises TypeError or ValueError, one sentence."""
        arguments.truth("record_signals", record_signals)
        arguments.whole("logprobs", logprobs, 0)
        pairs = zip(prompts, map(arguments.checked_id, ids), strict=True)
        requests = [Request(name, prompt_ids(self.session, prompt), self.seed) for prompt, name in pairs]
        prepared = prepare(self.session, requests, self.method, self.decode_settings(record_signals, logprobs))
        if record_signals and (self.session.draft is None or self.session.draft.signals == "none"):
            raise ValueError(
                "record_signals asks for a draft with signals, but this model has none: give draft=FOLDER."
            )
        return prepared

    def decode_settings(self, record_signals: bool = False, logprobs: int = 0) -> DecodeSettings:
        """The settings as the engine takes them."""
        return DecodeSettings(self.sampling, self.max_new_tokens, record_signals, self.exits, logprobs)

    def plan(self, prompt: Prompt, id: str) -> Plan:
        """See `SpecExit.plan`."""
        (request,) = self.prepared([prompt], [id]).requests
        return Plan(
            method=self.method.name,
            why=self.why,
            policy=self.policy,
            drafts=self.method.draft_tokens,
            sampling=request.sampling,
            max_new_tokens=request.max_new_tokens,
            prompt_ids=request.prompt_ids,
        )

    def answers(self, prepared: PreparedRequests, slots: int) -> Iterator[Answer]:
        """The answers in the order of the requests, decoded in up to `slots` slots."""
        placement = Placement(min(slots, max(len(prepared.requests), 1)))
        for outcome in decode_prepared(prepared, placement):
            yield reading.answer_of(self.session, outcome, self.method, self.policy)

    def pieces(self, prepared: PreparedRequests) -> Iterator[Piece]:
        """The answer to a single request, piece by piece."""
        (request,) = prepared.requests
        with contextlib.closing(stream_pieces(prepared)) as found:
            yield from reading.pieces_of(self.session, found, request.thinking, self.method, self.policy)


def prompt_ids(session: Session, prompt: Prompt) -> tuple[int, ...]:
    """A prompt's token ids: those given, or those of its chat prompt with the thinking open."""
    prompt = arguments.plain(prompt)
    arguments.check_prompt(prompt)
    if arguments.is_ids(prompt):
        return tuple(int(token) for token in prompt)
    try:
        return tuple(chat_ids(session, prompt if isinstance(prompt, str) else [dict(turn) for turn in prompt]))
    except jinja2.TemplateError as error:
        raise ValueError(f"The target's chat template cannot be applied: {error}") from error
