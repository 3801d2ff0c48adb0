"""DeepSeek-R1-Distill-Qwen-1.5B: the whole pipeline on a published reasoning model.

Memory by arithmetic, GiB a device: 3.6 GB of bfloat16 weights, 28 KiB of cache a token, a draft of 106 M
parameters with 12 bytes each in training (float32, two moments). Decoding: 8 rows of 32,768 tokens, mesh (devices / tensor, 1,
tensor); training: fsdp over all devices, activations of the step come on top (`launch.benchmark --compile_only` shows them).

| devices | tensor | weights | caches | training: target and draft state |
|---|---|---|---|---|
| 1 | 1 | 3.3 | 7.0 | 4.5 |
| 4 | 2 | 1.7 | 1.8 | 1.1 |
| 8 | 2 | 1.7 | 0.9 | 0.6 |
| 16 | 2 | 1.7 | 0.4 | 0.3 |

W=runs/r1_distill_qwen_1_5b; C=configs/r1_distill_qwen_1_5b.py
python -m launch.rollout   --config=$C --workdir=$W    # traces of the model itself
python -m launch.annotate  --config=$C --workdir=$W
python -m launch.train     --config=$C --workdir=$W
python -m launch.calibrate --config=$C --workdir=$W
python -m launch.evaluate  --config=$C --workdir=$W
python -m launch.export    --target=deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B --draft=$W/draft_model --out=$W/export --format=eagle
"""

import ml_collections

from configs.models import published


def get_config() -> ml_collections.ConfigDict:
    return published(
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", {"intermediate_size": 8960, "draft_vocab_size": 32_000}, 32768
    )
