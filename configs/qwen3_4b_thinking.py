"""Qwen3-4B-Thinking-2507: the whole pipeline on a published reasoning model.

Memory by arithmetic, GiB a device: 8.0 GB of bfloat16 weights, 144 KiB of cache a token, a draft of 218 M
parameters with 12 bytes each in training (float32, two moments). Decoding: 8 rows of 32,768 tokens, mesh (devices / tensor, 1,
tensor); training: fsdp over all devices, activations of the step come on top (`launch.benchmark --compile_only` shows them).

| devices | tensor | weights | caches | training: target and draft state |
|---|---|---|---|---|
| 1 | 1 | 7.5 | 36.0 | 9.9 |
| 4 | 4 | 1.9 | 9.0 | 2.5 |
| 8 | 8 | 0.9 | 4.5 | 1.2 |
| 16 | 8 | 0.9 | 2.2 | 0.6 |

W=runs/qwen3_4b_thinking; C=configs/qwen3_4b_thinking.py
python -m launch.rollout   --config=$C --workdir=$W    # traces of the model itself
python -m launch.annotate  --config=$C --workdir=$W
python -m launch.train     --config=$C --workdir=$W
python -m launch.calibrate --config=$C --workdir=$W
python -m launch.evaluate  --config=$C --workdir=$W
python -m launch.export    --target=Qwen/Qwen3-4B-Thinking-2507 --draft=$W/draft_model --out=$W/export --format=eagle
"""

import ml_collections

from configs.models import published


def get_config() -> ml_collections.ConfigDict:
    return published("Qwen/Qwen3-4B-Thinking-2507", {"intermediate_size": 9728, "draft_vocab_size": 32_000}, 32768)
