"""Qwen3-4B-Thinking-2507: the whole pipeline on a published reasoning model.

8.0 GB of bfloat16 weights, 144 KiB of cache a token, a draft of 218 M parameters with 12 bytes each in training. Fits NVIDIA
H100s of 80 GB, 8 or more of them, a process each. GiB of a device by stage, and hours in all; 71.2 are there for arrays, and where
there is a dash the settings do not fit. By arithmetic, not run:

| devices | rollout | annotate | train | calibrate | rollout test | evaluate | hours |
| --- | --- | --- | --- | --- | --- | --- | --- |
| 1 | 62.4 | 49.0 | – | 20.0 | 45.6 | 49.0 | – |
| 8 | 62.4 | 49.0 | 15.2 | 20.0 | 45.6 | 49.0 | 39 |
| 16 | 62.4 | 49.0 | 7.9 | 20.0 | 45.6 | 49.0 | 21 |

C=configs/qwen3_4b_thinking.py; W=runs/qwen3_4b_thinking
python -m launch.plan      --config=$C --device=h100 --counts=1,8,16    # this table; --devices=8: what each stage needs
python -m launch.rollout   --config=$C --workdir=$W    # traces of the model itself
python -m launch.annotate  --config=$C --workdir=$W
python -m launch.train     --config=$C --workdir=$W
python -m launch.calibrate --config=$C --workdir=$W
python -m launch.rollout   --config=$C --workdir=$W --splits=test    # with the trained draft
python -m launch.evaluate  --config=$C --workdir=$W
python -m launch.export    --target=Qwen/Qwen3-4B-Thinking-2507 --draft=$W/draft_model --out=$W/export --format=eagle
python -m launch.generate  --target=Qwen/Qwen3-4B-Thinking-2507 --draft=$W/draft_model --prompt="What is 12 + 30 - 4?"
"""

import ml_collections

from configs.models import published


def get_config() -> ml_collections.ConfigDict:
    return published("Qwen/Qwen3-4B-Thinking-2507", {"intermediate_size": 9728, "draft_vocab_size": 32_000})
