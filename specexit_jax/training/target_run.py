"""Training of a target from scratch on the reasoning world, from documents to a Hugging Face folder."""

import dataclasses
import json
import random
from pathlib import Path

import jax
import numpy as np
from transformers import PreTrainedTokenizerBase

from specexit_jax.data.batches import Batches, RowsInMemory
from specexit_jax.data.documents import Mixture, documents
from specexit_jax.data.packing import Rows, pack
from specexit_jax.data.splits import sample
from specexit_jax.data.tokenizer import load_tokenizer, train_tokenizer
from specexit_jax.data.world.writer import thinking_text, write_trace
from specexit_jax.decoding.sampling import PRNG
from specexit_jax.models.checkpoints.hf import load_target, save_target
from specexit_jax.models.config import TargetConfig
from specexit_jax.models.target import Target, init_target
from specexit_jax.training.lm import make_train_step
from specexit_jax.training.loop import LoopConfig, fit
from specexit_jax.training.optimizer import OptimizerConfig, make_optimizer, schedules
from specexit_jax.training.state import TrainState, init_state

SPLIT = "target"
_TOKENIZER_PROBLEMS = 12_000  # documents whose texts the tokenizer is trained on


@dataclasses.dataclass(frozen=True)
class TargetRun:
    """What is trained, and on what: problems per task, documents per problem, rows, and the sampler that the model will
    be used with.

    init: a Hugging Face folder whose weights and tokenizer the run starts from; if empty, both are new.
    """

    per_task: int
    vocab_size: int
    mixture: Mixture
    row_length: int
    batch_size: int
    seed: int
    temperature: float
    init: str | None = None


def prepare(run: TargetRun, workdir: Path) -> tuple[PreTrainedTokenizerBase, Rows]:
    """The tokenizer and the packed rows of `workdir`, made by the first call and read from disk afterwards."""
    folder, path = workdir / "tokenizer", workdir / "rows.npz"
    if path.exists():
        with np.load(path) as rows:
            return load_tokenizer(folder), dict(rows)
    problems = sample(SPLIT, run.per_task)
    random.Random(run.seed).shuffle(problems)
    texts, rng = [], random.Random(run.seed + 1)
    for problem in problems[:_TOKENIZER_PROBLEMS]:
        trace = write_trace(problem.task, problem.entry, rng)
        texts += [f" {problem.question}", thinking_text(trace), trace.answer]
    tokenizer = load_tokenizer(run.init) if run.init else train_tokenizer(texts, run.vocab_size)
    tokenizer.save_pretrained(str(folder))
    made = documents(problems, tokenizer, run.mixture, run.seed + 2)
    kept = [document for document in made if len(document[0]) <= run.row_length]
    if not kept:
        lengths = [len(ids) for ids, _ in made]
        raise ValueError(
            f"train.row_length is {run.row_length}, and the documents have {min(lengths)} to {max(lengths)} tokens: none is left "
            f"to train on; for all of them give train.row_length={max(lengths)}."
        )
    print(
        f"{len(kept)} documents, {sum(len(ids) for ids, _ in kept)} tokens; {len(made) - len(kept)} too long for a row"
    )
    rows = pack(kept, run.row_length, run.seed)
    temporary = workdir / "rows.tmp.npz"
    np.savez(temporary, **rows)
    temporary.rename(path)
    return tokenizer, rows


def train_target(
    run: TargetRun, model: TargetConfig, optimizer_config: OptimizerConfig, loop: LoopConfig, workdir: Path
) -> TrainState:
    """Trains in `workdir`, resuming there, and writes `workdir/target`."""
    workdir.mkdir(parents=True, exist_ok=True)
    tokenizer, rows = prepare(run, workdir)
    optimizer = make_optimizer(optimizer_config)
    state = init_state(_first_params(run, model), optimizer)
    step = make_train_step(Target(model), optimizer)
    batches, rates = Batches(RowsInMemory(rows), run.batch_size, run.seed), schedules(optimizer_config)
    state = fit(loop, state, step, batches, workdir, rates=rates)
    save_folder(workdir / "target", model, state.params, tokenizer, run.temperature)
    return state


def _first_params(run: TargetRun, model: TargetConfig) -> dict:
    if not run.init:
        return init_target(model, jax.random.key(run.seed, impl=PRNG))
    found, params = load_target(run.init)
    shapes = [jax.eval_shape(lambda config=config: init_target(config, jax.random.key(0))) for config in (found, model)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the model in {run.init} has other shapes than the config's: make them equal, or leave init out"
        )
    return params


def save_folder(
    folder: Path, model: TargetConfig, params: dict, tokenizer: PreTrainedTokenizerBase, temperature: float
) -> None:
    """Writes weights (in bfloat16), tokenizer and generation_config.json (with the temperature of all measurements)."""
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    save_target(folder, model, params, "bfloat16", extra=ids)
    tokenizer.save_pretrained(str(folder))
    generation = {**ids, "do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
