"""launch.benchmark --preset: the decoding loop timed at the shapes of a model, with random weights."""

import dataclasses
import json
import os

import jax
from absl import flags

from launch import door
from specexit_jax.engine.methods import DRAFT_TOKENS
from specexit_jax.evaluation.loop import report as loop_report
from specexit_jax.evaluation.loop.peers import compare
from specexit_jax.evaluation.loop.timing import LoopTimer, make_case
from specexit_jax.sizing.presets import TARGETS, draft_for
from specexit_jax.sizing.random_weights import random_params

FLAGS = flags.FLAGS
flags.DEFINE_integer("buffer", None, "The most tokens of a row; default: --context plus what the run adds.")
flags.DEFINE_integer("draft_tokens", None, f"Drafts of each step; default: {DRAFT_TOKENS}, with --tree its depth.")
flags.DEFINE_list("tree", None, "depth,top_k,total: use a draft tree of this shape instead of a chain.")
flags.DEFINE_float(
    "simulate_accept_length", None, "Mean number of tokens that an iteration yields, whatever the target samples."
)
flags.DEFINE_enum(
    "dtype",
    None,
    ["float32", "bfloat16"],
    "Data type of weights and computation; default: float32 on CPU, bfloat16 elsewhere.",
)
flags.DEFINE_integer("iterations", 50, "Iterations of the loop in each run.", lower_bound=1)
flags.DEFINE_integer("repeats", 5, "Interleaved runs of every part; the median is reported.", lower_bound=1)
flags.DEFINE_bool(
    "signals", False, "Also time a loop without signals, exit score and exit rule, and report their share."
)
flags.DEFINE_bool("peers", False, "Also time a loop that the host drives and, where torch is installed, transformers.")


def check() -> None:
    """Refuses a malformed tree."""
    door.tree(FLAGS.tree)


def report(as_json: bool) -> str:
    """Times the parts that the flags ask for."""
    batch = FLAGS.batch_size or 1
    if batch == 1:
        door.decode_on_one_thread()
    tree = door.tree(FLAGS.tree)
    drafts = FLAGS.draft_tokens if FLAGS.draft_tokens is not None else tree.depth if tree else DRAFT_TOKENS
    dtype = FLAGS.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    target = dataclasses.replace(TARGETS[FLAGS.preset], dtype=dtype, attention=FLAGS.attention)
    draft = draft_for(target, FLAGS.draft_kind, FLAGS.draft_family)
    target = draft.reading(target)
    case = make_case(
        target,
        draft,
        batch=batch,
        context=FLAGS.context or 512,
        buffer=FLAGS.buffer,
        draft_tokens=drafts,
        tree=tree,
        simulate_accept_length=FLAGS.simulate_accept_length,
        iterations=FLAGS.iterations,
    )
    params = random_params(target, case.spec.draft)
    timer = LoopTimer(case, params)
    found = {"preset": FLAGS.preset, "dtype": dtype, "attention": FLAGS.attention, "device": _device()}
    found |= loop_report.described(case)
    found |= loop_report.measure(timer, FLAGS.repeats)
    if FLAGS.signals:
        found["signals"] = loop_report.signal_share(timer, params)
    if FLAGS.peers:
        found["peers"] = compare(timer, params, FLAGS.repeats, _threads())
    return json.dumps(found) if as_json else loop_report.text(found)


def _threads() -> int:
    return int(os.environ.get("NPROC", os.cpu_count()))


def _device() -> str:
    if jax.default_backend() == "cpu":
        return f"cpu ({_threads()} thread{'s' if _threads() > 1 else ''})"
    return jax.devices()[0].device_kind
