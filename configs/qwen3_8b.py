"""Qwen3-8B: the whole pipeline on a published reasoning model.

Memory by arithmetic, GiB a device: 16.4 GB of bfloat16 weights, 144 KiB of cache a token, a draft of 400 M
parameters with 12 bytes each in training (float32, two moments). Decoding: 8 rows of 32,768 tokens, mesh (devices / tensor, 1,
tensor); training: fsdp over all devices, activations of the step come on top (`launch.benchmark --compile_only` shows them).

| devices | tensor | weights | caches | training: target and draft state |
|---|---|---|---|---|
| 1 | 1 | 15.3 | 36.0 | 19.7 |
| 4 | 4 | 3.8 | 9.0 | 4.9 |
| 8 | 8 | 1.9 | 4.5 | 2.5 |
| 16 | 8 | 1.9 | 2.2 | 1.2 |

W=runs/qwen3_8b; C=configs/qwen3_8b.py
python -m launch.rollout   --config=$C --workdir=$W    # traces of the model itself
python -m launch.annotate  --config=$C --workdir=$W
python -m launch.train     --config=$C --workdir=$W
python -m launch.calibrate --config=$C --workdir=$W
python -m launch.evaluate  --config=$C --workdir=$W
python -m launch.export    --target=Qwen/Qwen3-8B --draft=$W/draft_model --out=$W/export --format=eagle
"""

import ml_collections

from configs.models import published


def get_config() -> ml_collections.ConfigDict:
    return published("Qwen/Qwen3-8B", {"intermediate_size": 12288, "draft_vocab_size": 32_000}, 32768)
