"""DeepSeek-R1-Distill-Qwen-1.5B: the whole pipeline on a published reasoning model.

3.6 GB of bfloat16 weights, 28 KiB of cache a token, a draft of 106 M parameters with 12 bytes each in training. Fits NVIDIA
H100s of 80 GB, 8 or more of them, a process each. GiB of a device by stage, and hours in all; 71.2 are there for arrays, and where
there is a dash the settings do not fit. By arithmetic, not run:

| devices | rollout | annotate | train | calibrate | rollout test | evaluate | hours |
| --- | --- | --- | --- | --- | --- | --- | --- |
| 1 | 60.3 | 11.7 | 50.4 | 13.1 | 62.8 | 62.8 | 81 |
| 8 | 60.3 | 11.7 | 6.6 | 13.1 | 62.8 | 62.8 | 11 |
| 16 | 60.3 | 11.7 | 3.4 | 13.1 | 62.8 | 62.8 | 6 |

C=configs/r1_distill_qwen_1_5b.py; W=runs/r1_distill_qwen_1_5b
python -m launch.plan      --config=$C --device=h100 --counts=1,8,16    # this table; --devices=8: what each stage needs
python -m launch.rollout   --config=$C --workdir=$W    # traces of the model itself
python -m launch.annotate  --config=$C --workdir=$W
python -m launch.train     --config=$C --workdir=$W
python -m launch.calibrate --config=$C --workdir=$W
python -m launch.rollout   --config=$C --workdir=$W --splits=test    # with the trained draft
python -m launch.evaluate  --config=$C --workdir=$W
python -m launch.export    --target=deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B --draft=$W/draft_model --out=$W/export --format=eagle
python -m launch.generate  --target=deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B --draft=$W/draft_model --prompt="What is 12 + 30 - 4?"
"""

import ml_collections

from configs.models import published


def get_config() -> ml_collections.ConfigDict:
    return published(
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", {"intermediate_size": 8960, "draft_vocab_size": 32_000}
    )
