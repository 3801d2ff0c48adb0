"""launch.benchmark --annotation: time of answers forced one at a time and in parallel, at the shapes of a model."""

import dataclasses
import json

import jax
from absl import flags

from launch import door
from specexit_jax.evaluation.loop.annotation_cost import Case, annotation_cost, text
from specexit_jax.sizing.presets import TARGETS
from specexit_jax.sizing.random_weights import random_params

FLAGS = flags.FLAGS
flags.DEFINE_bool("annotation", False, "Time forced answers on a trace with --context thinking tokens (default: 1024).")
flags.DEFINE_list(
    "branches",
    ["8", "32"],
    "With --annotation: numbers of boundaries that are decoded at a time; each number is timed.",
)
flags.DEFINE_integer("boundary_every", 64, "With --annotation: tokens from one boundary to the next.", lower_bound=1)
flags.DEFINE_integer("max_answer", 16, "With --annotation: tokens of each answer.", lower_bound=1)


def wanted() -> bool:
    return FLAGS.annotation


def check() -> None:
    """Refuses branches that are not numbers."""
    door.whole_numbers("branches", FLAGS.branches)


def report(as_json: bool) -> str:
    """Times the model of --preset, in --repeats interleaved rounds."""
    case = Case(
        FLAGS.context or 1024,
        FLAGS.boundary_every,
        FLAGS.max_answer,
        door.whole_numbers("branches", FLAGS.branches),
        FLAGS.repeats,
    )
    dtype = FLAGS.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    target = dataclasses.replace(TARGETS[FLAGS.preset], dtype=dtype)
    found = annotation_cost(target, random_params(target).target, case)
    found = {"preset": FLAGS.preset, "dtype": dtype, "device": jax.devices()[0].device_kind} | found
    return json.dumps(found) if as_json else text(found)
