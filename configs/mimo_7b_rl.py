"""MiMo-7B-RL: the whole pipeline on a published reasoning model that has its draft in its checkpoint.

15.2 GB of bfloat16 weights, 144 KiB of cache a token, a draft of 211 M parameters with 12 bytes each in training. Fits NVIDIA
H100s of 80 GB, 8 or more of them, a process each. GiB of a device by stage, and hours in all; 71.2 are there for arrays, and where
there is a dash the settings do not fit. By arithmetic, not run:

| devices | rollout | annotate | train | calibrate | rollout test | evaluate | hours |
| --- | --- | --- | --- | --- | --- | --- | --- |
| 1 | 50.9 | 55.8 | – | 30.7 | 52.3 | 55.8 | – |
| 8 | 50.9 | 55.8 | 15.0 | 30.7 | 52.3 | 55.8 | 58 |
| 16 | 50.9 | 55.8 | 7.8 | 30.7 | 52.3 | 55.8 | 31 |

The draft is the checkpoint's MTP layer, retuned on three recursive steps with FastMTP's weights, with signal heads on its output;
--config.train.learn=signals leaves the layer as it is and learns the heads alone, --config.train.init=target starts afresh.

C=configs/mimo_7b_rl.py; W=runs/mimo_7b_rl
python -m launch.plan      --config=$C --device=h100 --counts=1,8,16    # this table; --devices=8: what each stage needs
python -m launch.rollout   --config=$C --workdir=$W    # traces of the model itself
python -m launch.annotate  --config=$C --workdir=$W
python -m launch.train     --config=$C --workdir=$W
python -m launch.calibrate --config=$C --workdir=$W
python -m launch.rollout   --config=$C --workdir=$W --splits=test    # with the trained draft
python -m launch.evaluate  --config=$C --workdir=$W
python -m launch.export    --target=XiaomiMiMo/MiMo-7B-RL --draft=$W/draft_model --out=$W/export --format=checkpoint
python -m launch.generate  --target=XiaomiMiMo/MiMo-7B-RL --draft=builtin --prompt="What is 12 + 30 - 4?"    # as published
python -m launch.generate  --target=XiaomiMiMo/MiMo-7B-RL --draft=$W/draft_model --prompt="What is 12 + 30 - 4?"
"""

import ml_collections

from configs.models import published


def get_config() -> ml_collections.ConfigDict:
    config = published("XiaomiMiMo/MiMo-7B-RL", {"intermediate_size": 11008, "draft_vocab_size": 151_680})
    config.train.kind, config.train.family, config.train.init = "mtp", "mimo", "builtin"
    config.train.ttt_steps, config.train.ttt_decay = 3, 0.6
    config.train.optimizer.learning_rate = 5e-5
    return config
