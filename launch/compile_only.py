"""launch.benchmark --compile_only: a program compiled for a described TPU slice or for GPUs, and the memory it takes there.

--preset, --draft_kind, --batch_size, --context and --attention are those of launch.benchmark. For a training step it also
reports the FLOPs (training/flops.py) and their time at 40 % of the devices' peak; for a GPU what an iteration of the loop
launches, moves and writes (sizing/program_text.py), beside the least that it must move (sizing/traffic.py); for a mesh the
collectives.
"""

import dataclasses
import json
import time

from absl import flags

from launch import loading
from specexit_jax.decoding.spec import DecodeSpec
from specexit_jax.models.config import ROW_ATTENTIONS
from specexit_jax.sizing import compile_ahead
from specexit_jax.sizing.presets import TARGETS, draft_for
from specexit_jax.sizing.program_text import collectives_of, iteration_of
from specexit_jax.sizing.traffic import traffic
from specexit_jax.training.draft import DraftTrainingConfig
from specexit_jax.training.flops import draft_step_flops

FLAGS = flags.FLAGS
flags.DEFINE_bool(
    "compile_only", False, "Compile ahead of time for --topology; nothing runs, and no such device is needed."
)
flags.DEFINE_string(
    "topology",
    "v5e:2x2",
    "What to compile for: a TPU slice, as v5e:1x1, v5e:4x4, v4:2x2x1, or GPUs, as h100:1, h100:8, a100:4.",
)
flags.DEFINE_enum(
    "program", "decode", ["decode", "train"], "Program to compile: the decoding loop, or a step of draft training."
)
flags.DEFINE_integer("prompt", 512, "With --program=decode: tokens of a prompt, padding included.")
flags.DEFINE_list(
    "mesh",
    None,
    "data,fsdp,tensor: devices on each mesh axis, one may be -1; default: 1,1,-1 for decode, 1,-1,1 for train.",
)
flags.DEFINE_enum(
    "row_attention",
    "auto",
    list(ROW_ATTENTIONS),
    "With --program=train: attention of training rows (models/row_attention.py).",
)
flags.DEFINE_integer(
    "chunk", 1024, "With --program=train: tokens of a row whose logits are computed at a time.", lower_bound=1
)
flags.DEFINE_integer(
    "sliding_window", 0, "With --program=train: latest tokens that the draft attends to; 0: all.", lower_bound=0
)


def wanted() -> bool:
    return FLAGS.compile_only


def check() -> None:
    """Refuses a malformed mesh."""
    if FLAGS.mesh:
        loading.mesh_sizes(FLAGS.mesh)


def report(as_json: bool) -> str:
    """Compiles, and reports what was compiled and its memory. --context: tokens of a row, prompt included; train: of a
    packed row."""
    batch, context = FLAGS.batch_size or 8, FLAGS.context or 4096
    decodes = FLAGS.program == "decode"
    sizes = loading.mesh_sizes(FLAGS.mesh) if FLAGS.mesh else (1, 1, -1) if decodes else (1, -1, 1)
    mesh = compile_ahead.device_mesh(FLAGS.topology, *sizes)
    target = dataclasses.replace(
        TARGETS[FLAGS.preset], dtype="bfloat16", attention=FLAGS.attention, row_attention=FLAGS.row_attention
    )
    draft = dataclasses.replace(
        draft_for(target, FLAGS.draft_kind, FLAGS.draft_family),
        row_attention=FLAGS.row_attention,
        sliding_window=FLAGS.sliding_window,
    )
    target = draft.reading(target)
    found = {
        name: FLAGS[name].value
        for name in ("preset", "draft_kind", "program", "attention", "row_attention", "topology")
    }
    found |= {"mesh": dict(mesh.shape), "rows": batch, "tokens": context}
    start = time.perf_counter()
    if decodes:
        compiled = compile_ahead.compile_decode(mesh, target, draft, batch, FLAGS.prompt, context)
        found |= _iteration(compiled, mesh, target, draft, batch, context)
    else:
        config = DraftTrainingConfig(steps=4, teacher_chunk=FLAGS.chunk, loss_chunk=FLAGS.chunk, remat=True)
        compiled = compile_ahead.compile_draft_step(mesh, target, draft, batch, context, config)
        flops = draft_step_flops(target, draft, batch, context, config.steps)
        found |= {"collectives": collectives_of(compiled.as_text())} if mesh.size > 1 else {}
        found |= {"flops": flops, "seconds_at_40_percent": compile_ahead.seconds_at(0.4, flops, mesh, FLAGS.topology)}
    memory = compile_ahead.memory_of(compiled)
    found["compile_seconds"] = round(time.perf_counter() - start, 1)
    found["bytes_a_device"] = {**dataclasses.asdict(memory), "total": memory.total}
    return json.dumps(found) if as_json else compile_ahead.sentence(found)


def _iteration(compiled, mesh, target, draft, batch: int, context: int) -> dict:
    """What an iteration of the loop does: kernels and bytes where the program is a GPU's, collectives where there is a mesh."""
    text = compiled.as_text()
    found = {"collectives": iteration_of(text).collectives} if mesh.size > 1 else {}
    if compile_ahead.platform_of(mesh) != "gpu":
        return found
    told, spec = iteration_of(text), DecodeSpec(target, context, (0,), (1,), draft, 3)
    return found | {
        "kernels_an_iteration": told.launches,
        "kernels": told.kernels,
        "moved_bytes": told.moved,
        "floor_bytes": traffic(spec, batch, context).whole // mesh.size,
        "written_bytes": [dataclasses.asdict(each) for each in told.written],
    }
