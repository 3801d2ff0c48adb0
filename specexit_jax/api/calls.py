"""One call of the API: its method, policy, sampling and length are resolved, its prompts prepared, and the engine run."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax.numpy as jnp
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
from specexit_jax.exits.frontier_file import FRONTIER, CertifiedRisk, at_most, certified_risks
from specexit_jax.exits.policy_file import PolicyFile
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
        self._by_risk: dict[tuple[str, float], Method] = {}
        self._files: dict[Path, tuple[PolicyFile, tuple[CertifiedRisk, ...]]] = {}

    def named(self, name: str | None) -> tuple[Choice, Method]:
        """The method called `name`, and why it was chosen. None: the default, which depends on the draft and its policy."""
        if name not in self._made:
            exits = self._exits
            choice = choose(self._session, exits.draft, name, exits.policy, exits.exit_rule, exits.smoother)
            drafts = {"draft_tokens": exits.draft_tokens, "tree": exits.tree}
            self._made[name] = choice, make_method(self._session, choice.name, choice.policy, choice.kinds, **drafts)
        return self._made[name]

    def risks(self, name: str | None) -> tuple[CertifiedRisk, ...]:
        """The risks that the exits of this method are certified for, ascending; () for a method without certified exits."""
        choice, _ = self.named(name)
        return self._read(choice)[1]

    def _read(self, choice: Choice) -> tuple[PolicyFile | None, tuple[CertifiedRisk, ...]]:
        """The policy.json of a choice, None where it has none, and the risks that it is certified for."""
        if choice.name not in EXITING or choice.path is None:
            return None, ()
        if choice.path not in self._files:
            file = policy_file(self._session, choice.path, self._exits.exit_rule, self._exits.smoother)
            risks = () if file is None else certified_risks(file, choice.path.with_name(FRONTIER))
            self._files[choice.path] = file, risks
        return self._files[choice.path]

    def call(self, settings: Settings, tell: Callable[[str], None] = note) -> "Call":
        """Resolves checked settings. tell: called with one sentence where the policy was not made for them. Raises ValueError on a
        method that needs more than this model has, and under strict_policy instead of telling."""
        choice, method = self.named(settings.get("method"))
        own = {name: settings[name] for name in arguments.SAMPLED if name in settings}
        sampling = dataclasses.replace(self._session.sampling, **own)
        length = settings.get("max_new_tokens", self._session.max_new_tokens)
        exits = settings.get("exits", True)
        risk = self._risk(choice, settings.get("epsilon"), exits)
        if "epsilon" in settings:
            method = self._at(method, risk)
        policy = self._policy(choice, sampling, length, risk) if exits else None
        if policy is not None and policy.uncovered is not None:
            if self._exits.strict_policy:
                raise ValueError(f"{policy.uncovered} (strict_policy refuses it)")
            tell(policy.uncovered)
        budget = settings.get("thinking_budget")
        chosen = self._session, choice, method, policy, sampling, length
        return Call(*chosen, settings.get("seed", 0), exits, risk if exits else None, budget)

    def _at(self, method: Method, risk: CertifiedRisk) -> Method:
        """The method with the thresholds of a risk."""
        key = method.name, risk.epsilon
        if key not in self._by_risk:
            limits = jnp.asarray(risk.policy.thresholds, jnp.float32)
            self._by_risk[key] = dataclasses.replace(method, policy=method.policy.replace(thresholds=limits))
        return self._by_risk[key]

    def _risk(self, choice: Choice, epsilon: float | None, exits: bool) -> CertifiedRisk | None:
        """The certified risk that `epsilon` asks for; None: the policy's own. None where there is none."""
        if epsilon is not None and (choice.name not in EXITING or not exits):
            raise ValueError(
                f"epsilon is the risk of exits, and this request takes none (method {choice.name!r}): leave it out."
            )
        file, risks = self._read(choice)
        if epsilon is not None:
            return at_most(risks, epsilon)
        return next((risk for risk in risks if risk.policy.thresholds == file.thresholds), None)

    def _policy(self, choice: Choice, sampling: Sampling, length: int, risk: CertifiedRisk | None) -> ExitPolicy | None:
        if choice.name not in EXITING:
            return None
        exits, session = self._exits, self._session
        file = self._read(choice)[0] if risk is None else risk.policy
        return reading.policy_of(file, session, choice.path, sampling, length, exits.smoother, exits.exit_rule)


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """What all requests of one call share. risk: what its exits are certified for; None where they are not."""

    session: Session
    choice: Choice
    method: Method
    policy: ExitPolicy | None
    sampling: Sampling
    max_new_tokens: int
    seed: int
    exits: bool
    risk: CertifiedRisk | None = None
    thinking_budget: int | None = None

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
        return DecodeSettings(
            self.sampling, self.max_new_tokens, record_signals, self.exits, self.thinking_budget, logprobs
        )

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
