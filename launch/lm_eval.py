"""Runs tasks of lm-evaluation-harness by one of our methods: its table, the cost of decoding,
WORKDIR/lm_eval/METHOD-TASKS.json.

python -m launch.lm_eval --config=configs/embedded.py --workdir=runs/embedded --tasks=gsm8k --method=specexit [--limit=N]
Needs lm-eval (requirements-dev.txt). The draft and policy are WORKDIR's where training left them there, else the config's.
"""

import importlib.util
from pathlib import Path

from absl import flags

from launch import checks, door, loading, stages, strictness
from specexit_jax.engine.methods import DECODED, EXITING, make_method
from specexit_jax.exits.policy_file import load_policy

FLAGS = flags.FLAGS
flags.DEFINE_list("tasks", None, "Tasks of lm-eval: names or YAML files, separated by commas.", required=True)
flags.DEFINE_string("method", "specexit", f"Decoding method: {', '.join(DECODED)}.")
flags.DEFINE_float("limit", None, "Problems of each task; a number below 1 is a share of them. Default: all.")
flags.DEFINE_integer("num_fewshot", None, "Solved examples before each problem; default: as the task says.")
flags.DEFINE_string("include_path", None, "Folder with YAML files of additional tasks.")
flags.DEFINE_string("system_instruction", None, "Text of the system message.")
flags.DEFINE_bool("apply_chat_template", True, "Format prompts with the chat template, which opens the thinking.")
flags.DEFINE_bool("keep_thinking", False, "Give the task the thinking and the answer; default: the answer alone.")
flags.DEFINE_string("gen_kwargs", None, "key=value,…: override the tasks' generation_kwargs.")
flags.DEFINE_float(
    "temperature", None, "Override the tasks' temperature; the other sampling settings are then the target's own."
)
flags.DEFINE_integer(
    "max_gen_toks",
    None,
    "The most tokens to generate, instead of the tasks' max_gen_toks; default: config.rollout.max_new_tokens.",
)
flags.DEFINE_string(
    "batch_size", None, "Rows that are decoded at a time: a number, auto or auto:MOST; default: the config's."
)
flags.DEFINE_string(
    "use_cache",
    None,
    "File in which lm-eval keeps greedy answers, to resume a stopped run. Use one file for each method.",
)


def check():
    """Returns the config, the draft and the policy that the method needs."""
    door.alone("evaluation")
    door.known("method", FLAGS.method, DECODED)
    if importlib.util.find_spec("lm_eval") is None:
        raise ValueError("lm-evaluation-harness is not installed: pip install 'lm-eval>=0.4.13,<0.5'.")
    config, exits = door.config(), FLAGS.method in EXITING
    draft = checks.draft_of(config, needed=exits or FLAGS.method.endswith("eagle3"))
    policy = checks.policy_of(config) if exits else None
    if policy is not None:
        load_policy(policy)
    return config, draft, policy


def main() -> None:
    door.decode_on_one_thread()
    config, draft, path = check()
    from specexit_jax.evaluation.lm_eval.model import SpecExitLM
    from specexit_jax.evaluation.lm_eval.run import evaluated

    workdir, session = Path(FLAGS.workdir), loading.open_session(config, draft)
    file = load_policy(path, session.draft_digest) if path else None
    policy, kinds = (file.policy(), file.boundary_kinds) if file else (None, ("paragraph",))
    method = make_method(session, FLAGS.method, policy, kinds, config.evaluate.draft_tokens)
    settings = {name: FLAGS[name].value for name in ("temperature", "keep_thinking")}
    rows = stages.rows_of(config, FLAGS.batch_size or config.evaluate.batch_size)
    settings |= {"batch_size": rows, "seed": config.seed}
    settings |= {"max_gen_toks": FLAGS.max_gen_toks or config.rollout.max_new_tokens}
    settings |= {"policy_file": file, "strict_policy": strictness.enabled()}
    asked = ("num_fewshot", "limit", "system_instruction", "apply_chat_template", "gen_kwargs", "use_cache")
    options = {name: FLAGS[name].value for name in asked}
    door.say(evaluated(SpecExitLM(session, method, **settings), FLAGS.tasks, workdir, FLAGS.include_path, **options))


if __name__ == "__main__":
    door.define_config()
    door.run(main)
