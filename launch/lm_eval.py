"""Runs tasks of lm-evaluation-harness by one of our methods: its table, the cost of decoding,
WORKDIR/lm_eval/METHOD-TASKS.json.

python -m launch.lm_eval --config=configs/embedded.py --workdir=runs/embedded --tasks=gsm8k --method=specexit [--limit=N]
Needs lm-eval (requirements-dev.txt). The draft and policy are WORKDIR's where training left them there, else the config's.
"""

import importlib.util
from pathlib import Path

from absl import flags

from launch import checks, door, strictness
from specexit_jax.engine.methods import DECODED, EXITING, make_method
from specexit_jax.exits.policy_file import load_policy

FLAGS = flags.FLAGS
flags.DEFINE_list("tasks", None, "Tasks of lm-eval: names, or YAML files.", required=True)
flags.DEFINE_string("method", "specexit", f"One of {', '.join(DECODED)}.")
flags.DEFINE_float("limit", None, "Problems a task, below 1 a share of them; default: all.")
flags.DEFINE_integer("num_fewshot", None, "Examples before a problem; default: the task's.")
flags.DEFINE_string("include_path", None, "Folder of tasks of your own.")
flags.DEFINE_string("system_instruction", None, "What the system role says.")
flags.DEFINE_bool("apply_chat_template", True, "Prompts by the chat template, which opens the thinking.")
flags.DEFINE_bool("keep_thinking", False, "The task judges the thinking as well, not the answer alone.")
flags.DEFINE_string("gen_kwargs", None, "key=value,… over the tasks' generation_kwargs.")
flags.DEFINE_float("temperature", None, "Over the tasks' own, with the target's own filters.")
flags.DEFINE_integer("max_gen_toks", None, "Over the tasks' own; default: config.rollout.max_new_tokens.")
flags.DEFINE_integer("batch_size", None, "Rows decoded together; default: the config's.")
flags.DEFINE_string("use_cache", None, "File where lm-eval keeps greedy answers, to go on after a kill; one a method.")


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

    workdir, session = Path(FLAGS.workdir), door.open_session(config, draft)
    file = load_policy(path, session.draft_digest) if path else None
    policy, kinds = (file.policy(), file.boundary_kinds) if file else (None, ("paragraph",))
    method = make_method(session, FLAGS.method, policy, kinds, config.evaluate.draft_tokens)
    settings = {name: FLAGS[name].value for name in ("temperature", "keep_thinking")}
    settings |= {"batch_size": FLAGS.batch_size or config.evaluate.batch_size, "seed": config.seed}
    settings |= {"max_gen_toks": FLAGS.max_gen_toks or config.rollout.max_new_tokens}
    settings |= {"policy_file": file, "strict_policy": strictness.asked()}
    asked = ("num_fewshot", "limit", "system_instruction", "apply_chat_template", "gen_kwargs", "use_cache")
    options = {name: FLAGS[name].value for name in asked}
    door.say(evaluated(SpecExitLM(session, method, **settings), FLAGS.tasks, workdir, FLAGS.include_path, **options))


if __name__ == "__main__":
    door.define_config()
    door.run(main)
