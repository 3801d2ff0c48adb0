"""The shared part of the configs of published models: the pipeline of embedded.py on another target, in bfloat16, on a
mesh."""

import ml_collections

from configs.embedded import get_config as embedded


def published(target: str, draft_sizes: dict[str, int], max_new_tokens: int) -> ml_collections.ConfigDict:
    """The experiment on `target` (a folder, or its name on the hub), whose draft is trained from scratch.

    draft_sizes: intermediate_size and draft_vocab_size. Thinking is long: rows of 16 k tokens, 4 steps of test-time training,
    and sampling as the model's own generation_config.json says. Decoding has all devices of a process on
    `tensor`, which must divide the key/value heads: beyond that many devices give the rest to `data`
    (--config.mesh.data=2 --config.mesh.tensor=8). Training has all devices of all processes on `fsdp`.
    Problems are the reasoning world's, or those of a table on the hub or on disk, in every stage:
    --config.source.name=openai/gsm8k --config.source.config=main --config.source.answer_after='####'
    """
    config = embedded()
    config.target, config.draft, config.policy = target, "", ""
    config.dtype = "bfloat16"
    config.mesh.tensor = -1
    # test is decoded by launch.evaluate, with the draft that was trained
    config.rollout.per_task = {"draft": 800, "development": 400, "calibration": 1000}
    config.rollout.batch_size = 32
    config.rollout.max_new_tokens = max_new_tokens
    config.annotate.max_answer = 1024
    # Thinking of 32 k tokens has hundreds of boundaries: one trace at a time fills the branches. 32 of them hold a cache of up
    # to 32 answers beside the trace's own.
    config.annotate.batch_size, config.annotate.branches = 1, 32
    config.train.update(draft_sizes)
    config.train.mesh.data, config.train.mesh.fsdp = 1, -1
    config.train.steps = 20_000
    config.train.batch_size = 16
    config.train.signal_positions = 30_000  # of 4,096 numbers each (at fc 12,288), on one host
    config.train.row_length = 16_384
    config.train.optimizer.name = "adamw"
    config.train.optimizer.learning_rate = 1e-4
    config.train.optimizer.warmup_steps = 500
    config.train.optimizer.schedule = "cosine"
    config.evaluate.batch_size = 8
    return config
