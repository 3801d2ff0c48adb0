"""What the configs of published models share: the pipeline of embedded.py on another target, in bfloat16, on a mesh."""

import ml_collections

from configs.embedded import METHODS
from configs.embedded import get_config as embedded


def published(target: str, draft_sizes: dict[str, int], max_new_tokens: int = 31_744) -> ml_collections.ConfigDict:
    """The experiment on `target` (a folder, or its name on the hub), whose draft is trained from scratch.

    draft_sizes: intermediate_size and draft_vocab_size. max_new_tokens: buffers are powers of two; with a prompt of up to 1,024
    tokens this one is of 32,768, and one token more would double it. As many rows are decoded at a time as fit the device
    (docs/scale.md); the plan counts on those that fit when all are as long as they may become.

    Thinking is long, so rows have 16 k tokens. The draft is trained with 4 steps of training-time test, and sampling follows the
    model's generation_config.json. Decoding uses all devices of a process on the mesh axis `tensor`, whose size must divide the
    number of key/value heads; with more devices use `data` as well (--config.mesh.data=2 --config.mesh.tensor=8). Training uses
    all devices of all processes on `fsdp`. Problems are those of the reasoning world, or in every stage those of a table on the
    hub or on disk:
    --config.source.name=openai/gsm8k --config.source.config=main --config.source.answer_after='####'
    """
    config = embedded()
    config.target, config.draft, config.policy = target, "", ""
    config.dtype = "bfloat16"
    config.mesh.tensor = -1
    # no rollouts of test before the draft is trained, whose acceptance they are to have: launch.evaluate decodes it on all
    # processes, or launch.rollout --splits=test
    config.rollout.per_task = {"draft": 800, "development": 400, "calibration": 1000}
    config.rollout.batch_size = "auto"
    config.rollout.max_new_tokens = max_new_tokens
    config.annotate.max_answer = 1024
    # Thinking of 32 k tokens has hundreds of boundaries. Of the draft split's, only those around T* are forced, and the three
    # after it that make it stable: about 16 of 200, four at a time (docs/scale.md). So several traces are searched at once; they
    # need the cache of as many rows in decoding, and the branches that of an answer each. The other splits are forced at every
    # boundary, which certificates need.
    config.annotate.batch_size, config.annotate.branches = 8, 4
    config.annotate.search, config.annotate.verify, config.annotate.width = True, 3, 4
    config.train.update(draft_sizes)
    config.train.mesh.data, config.train.mesh.fsdp = 1, -1
    config.train.steps = 20_000
    config.train.batch_size = 16
    # With 4,096 numbers each (12,288 at fc: 1.5 GB), all in the memory of one host. The default of signal_tokens, 100 M, is 6,100
    # rows: 5 boundaries of each of as many traces.
    config.train.signal_positions = 30_000
    config.train.row_length = 16_384
    config.train.optimizer.name = "adamw"
    config.train.optimizer.learning_rate = 1e-4
    config.train.optimizer.warmup_steps = 500
    config.train.optimizer.schedule = "cosine"
    config.evaluate.batch_size = "auto"
    # a row at a time, by one process: 8 of each task in 3 rounds would take a day
    config.evaluate.latency_per_task, config.evaluate.latency_rounds = 2, 1
    # without the bound `ceiling`: it reads all annotated traces of three splits again
    config.evaluate.methods = METHODS
    return config
