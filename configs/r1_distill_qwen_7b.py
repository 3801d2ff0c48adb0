"""DeepSeek-R1-Distill-Qwen-7B: the whole pipeline on a published reasoning model.

Memory by arithmetic, GiB a device: 15.2 GB of bfloat16 weights, 56 KiB of cache a token, a draft of 403 M
parameters with 12 bytes each in training (float32, two moments). Decoding: 8 rows of 32,768 tokens, mesh (devices / tensor, 1,
tensor); training: fsdp over all devices, activations of the step come on top (`launch.benchmark --compile_only` shows them).

| devices | tensor | weights | caches | training: target and draft state |
|---|---|---|---|---|
| 1 | 1 | 14.2 | 14.0 | 18.7 |
| 4 | 4 | 3.5 | 3.5 | 4.7 |
| 8 | 4 | 3.5 | 1.8 | 2.3 |
| 16 | 4 | 3.5 | 0.9 | 1.2 |

W=runs/r1_distill_qwen_7b; C=configs/r1_distill_qwen_7b.py
python -m launch.rollout   --config=$C --workdir=$W    # traces of the model itself
python -m launch.annotate  --config=$C --workdir=$W
python -m launch.train     --config=$C --workdir=$W
python -m launch.calibrate --config=$C --workdir=$W
python -m launch.evaluate  --config=$C --workdir=$W
python -m launch.export    --target=deepseek-ai/DeepSeek-R1-Distill-Qwen-7B --draft=$W/draft_model --out=$W/export --format=eagle
"""

import ml_collections

from configs.models import published


def get_config() -> ml_collections.ConfigDict:
    return published(
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", {"intermediate_size": 18944, "draft_vocab_size": 32_000}, 32768
    )
