"""DeepSeek-R1-Distill-Llama-8B: the whole pipeline on a published reasoning model.

Memory by arithmetic, GiB a device: 16.1 GB of bfloat16 weights, 128 KiB of cache a token, a draft of 425 M
parameters with 12 bytes each in training (float32, two moments). Decoding: 8 rows of 32,768 tokens, mesh (devices / tensor, 1,
tensor); training: fsdp over all devices, activations of the step come on top (`launch.benchmark --compile_only` shows them).

| devices | tensor | weights | caches | training: target and draft state |
|---|---|---|---|---|
| 1 | 1 | 15.0 | 32.0 | 19.7 |
| 4 | 4 | 3.7 | 8.0 | 4.9 |
| 8 | 8 | 1.9 | 4.0 | 2.5 |
| 16 | 8 | 1.9 | 2.0 | 1.2 |

W=runs/r1_distill_llama_8b; C=configs/r1_distill_llama_8b.py
python -m launch.rollout   --config=$C --workdir=$W    # traces of the model itself
python -m launch.annotate  --config=$C --workdir=$W
python -m launch.train     --config=$C --workdir=$W
python -m launch.calibrate --config=$C --workdir=$W
python -m launch.evaluate  --config=$C --workdir=$W
python -m launch.export    --target=deepseek-ai/DeepSeek-R1-Distill-Llama-8B --draft=$W/draft_model --out=$W/export --format=eagle
"""

import ml_collections

from configs.models import published


def get_config() -> ml_collections.ConfigDict:
    return published(
        "deepseek-ai/DeepSeek-R1-Distill-Llama-8B", {"intermediate_size": 14336, "draft_vocab_size": 32_000}, 32768
    )
