"""SpecExit: a target model with its draft and exit policy, loaded once."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

from jax.sharding import Mesh

from specexit_jax.api import arguments
from specexit_jax.api.answer import Answer, Piece, Plan
from specexit_jax.api.arguments import Prompt, Settings
from specexit_jax.api.calls import Call, Exits, Methods
from specexit_jax.api.conversation import Conversation
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.engine.methods import DECODED, DRAFT_TOKENS
from specexit_jax.engine.session import EMBEDDED, Session, load_session
from specexit_jax.storage.compilation_cache import keep_programs

SLOTS = 8  # requests that `generate_many` decodes at a time


class SpecExit:
    """A reasoning model with early exits. `load` makes one. Use it from one thread at a time.

    session: the loaded target and draft, as the engine takes them. methods: those that requests can name, made when first used.
    """

    METHODS = DECODED

    def __init__(self, session: Session, exits: Exits):
        self.session, self.methods = session, Methods(session, exits)

    @classmethod
    def load(
        cls,
        target: str | Path | None = None,
        draft: str | Path | None = None,
        policy: str | Path | None = None,
        *,
        dtype: Any = "float32",
        mesh: Mesh | Sequence[int] | None = None,
        draft_layer_ids: str | None = None,
        exit_rule: str | None = None,
        smoother: str | None = None,
        draft_tokens: int = DRAFT_TOKENS,
        tree: TreeShape | Sequence[int] | None = None,
        strict_policy: bool = False,
        attention: str = "xla",
        **unknown: Any,
    ) -> "SpecExit":
        """Loads a target and its draft, and chooses the policy.

        target: folder of a Llama 3, Qwen2, Qwen3 or MiMo checkpoint, or its name on the hub; None: the bundled model, with its own
        draft and policy. draft: folder or name of an EAGLE-3 draft (EAGLE's, AngelSlim's or the speculators' format) or of an
        MTP layer, or "builtin": the MTP layer in the target's checkpoint; a target without a draft decodes token by token and
        never exits. policy: a policy.json; by default the one in the draft's folder
        or beside it. dtype: of weights and computation, one of "float32", "bfloat16", "float16". mesh: what parameters are
        sharded over, a Mesh or sizes (data, fsdp, tensor); default: one device. draft_layer_ids: what the draft's layer ids count,
        "inputs" or "outputs", where its file does not say. attention: how a step reads the caches, "xla" or "pallas" (kernels for
        TPUs and GPUs that follow each row's own length). exit_rule: "default" or "released" (the released code's rule, which
        has no certificate). smoother: of the signals, instead of the policy's. draft_tokens: length of the drafted chain;
        tree: (depth, top_k, total) of a tree instead. strict_policy: refuse requests that the policy was not made for;
        otherwise they are reported in one line on standard error. On a CPU a single prompt decodes faster on one thread: set
        NPROC=1 in the environment before the first use, as `launch.generate` does.

        Compiled programs are kept for the next process, unless the environment has SPECEXIT_COMPILATION_CACHE=off.

        Raises TypeError, ValueError or FileNotFoundError, one sentence, on a wrong argument and on files that are missing or
        corrupt, or do not fit together.
        """
        arguments.refuse_unknown("SpecExit.load", unknown, _LOADED)
        for name, value in {"target": target, "draft": draft, "policy": policy}.items():
            arguments.check_folder(name, value)
        if target is None and draft is None:
            draft = EMBEDDED / "draft"
        if policy is not None and draft is None:
            raise ValueError("A policy reads the signals of a draft: give draft=FOLDER beside policy=FILE, or neither.")
        drafts = arguments.whole("draft_tokens", draft_tokens), arguments.tree_of(tree)
        exits = Exits(draft, policy, exit_rule, smoother, *drafts, arguments.truth("strict_policy", strict_policy))
        dtype, mesh = arguments.dtype_named(dtype), arguments.mesh_of(mesh)
        attention = arguments.attention_named(attention)
        keep_programs()
        target = EMBEDDED / "target" if target is None else target
        model = cls(load_session(str(target), draft and str(draft), dtype, mesh, draft_layer_ids, attention), exits)
        model.methods.named(None)  # a policy that does not fit is refused now
        return model

    def plan(self, prompt: Prompt, *, id: str = "generate", **settings: Unpack[Settings]) -> Plan:
        """The method, policy and settings by which `generate` would decode this prompt. Checks the same, and decodes nothing."""
        return self._call("plan", settings).plan(prompt, id)

    def generate(
        self,
        prompt: Prompt,
        *,
        id: str = "generate",
        record_signals: bool = False,
        logprobs: int = 0,
        **settings: Unpack[Settings],
    ) -> Answer:
        """The answer to one prompt: a text, a conversation as a list of messages {"role", "content"}, or token ids.

        Texts and messages go through the target's chat template, with the thinking open. settings: temperature, top_k, top_p,
        min_p, repetition_penalty, rule, max_new_tokens, method, seed and exits, as in `Settings`. id: any text; the tokens
        depend on (seed, id), the prompt and the settings alone. record_signals: keep the signals of every token
        (`Answer.signals`), whatever the method; logprobs: keep log-probabilities (`Answer.logprobs`), of so many most likely tokens
        beside the written ones (0: none). Each needs a program of its own.

        Raises TypeError or ValueError, one sentence, on a wrong argument and on a prompt that the target cannot read.
        """
        call = self._call("generate", settings, ("id", "record_signals", "logprobs"))
        (answer,) = call.answers(call.prepared([prompt], [id], record_signals, logprobs), 1)
        return answer

    def stream(self, prompt: Prompt, *, id: str = "generate", **settings: Unpack[Settings]) -> Iterator[Piece]:
        """The answer of `generate`, piece by piece while it is decoded. The last piece has the whole. To cancel, stop iterating.

        Arguments and errors are those of `generate`; errors are raised at once, not at the first piece.
        """
        call = self._call("stream", settings)
        return call.pieces(call.prepared([prompt], [id]))

    def generate_many(
        self,
        prompts: Sequence[Prompt],
        *,
        slots: int = SLOTS,
        ids: Sequence[str] | None = None,
        **settings: Unpack[Settings],
    ) -> list[Answer]:
        """The answers to many prompts, in their order. Arguments as for `answers`."""
        return list(self._answers("generate_many", prompts, slots, ids, settings))

    def answers(
        self,
        prompts: Sequence[Prompt],
        *,
        slots: int = SLOTS,
        ids: Sequence[str] | None = None,
        **settings: Unpack[Settings],
    ) -> Iterator[Answer]:
        """The answers to many prompts, one by one in the order of the prompts.

        slots: requests that are decoded at a time; a slot takes the next prompt when its request is finished. ids: of the
        requests, all different; by default "0", "1", … Each answer is that of `generate` for the same prompt, id and
        settings. One that is finished early waits for those before it. Errors as of `generate`, raised at once.
        """
        return self._answers("answers", prompts, slots, ids, settings)

    def _answers(self, function: str, prompts, slots, ids, settings: Settings) -> Iterator[Answer]:
        call = self._call(function, settings, ("slots", "ids"))
        prompts, slots = arguments.checked_prompts(prompts), arguments.whole("slots", slots, 1)
        names = arguments.checked_ids(ids, len(prompts))
        return call.answers(call.prepared(prompts, names), slots)

    def conversation(self, *, context: int | None = None, **settings: Unpack[Settings]) -> Conversation:
        """A new conversation of at most `context` tokens (default: 16,384, or the target's context if that is shorter).

        What the caches hold of earlier turns is not computed again. Errors as of `generate`.
        """
        call = self._call("conversation", settings, ("context",))
        return Conversation(call, None if context is None else arguments.whole("context", context, 2))

    def _call(self, function: str, settings: Settings, more: Sequence[str] = ("id",)) -> Call:
        return self.methods.call(arguments.checked(f"SpecExit.{function}", settings, more))


_LOADED = ("target", "draft", "policy", *(SpecExit.load.__func__.__kwdefaults__ or ()))
