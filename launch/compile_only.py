"""launch.benchmark --compile_only: a program compiled for a described TPU slice, and the memory it will take there.

--preset, --batch_size, --context and --attention are those of launch.benchmark.
"""

import dataclasses
import json
import time

from absl import flags

from specexit_jax import ahead
from specexit_jax.shapes import TARGETS, draft_for

FLAGS = flags.FLAGS
flags.DEFINE_bool("compile_only", False, "Compile ahead of time for --topology; nothing is run.")
flags.DEFINE_string("topology", "v5e:2x2", "The TPU slice: v5e:1x1, v5e:2x2, v5e:4x4, v4:2x2x1, ...")
flags.DEFINE_enum("program", "decode", ["decode", "train"], "The decoding loop, or a step of draft training.")
flags.DEFINE_integer("prompt", 512, "decode: tokens of a padded prompt.")
flags.DEFINE_list("mesh", None, "data,fsdp,tensor; one may be -1 (default: decode 1,1,-1; train 1,-1,1).")


def wanted() -> bool:
    return FLAGS.compile_only


def told(as_json: bool) -> str:
    """Compiles, and says what for and how large it is. --context: tokens of a row: prompt and all; train: of a packed row."""
    batch, context = FLAGS.batch_size or 8, FLAGS.context or 4096
    decodes = FLAGS.program == "decode"
    sizes = [int(size) for size in FLAGS.mesh] if FLAGS.mesh else [1, 1, -1] if decodes else [1, -1, 1]
    mesh = ahead.tpu_mesh(FLAGS.topology, *sizes)
    target = dataclasses.replace(TARGETS[FLAGS.preset], dtype="bfloat16", attention=FLAGS.attention)
    start = time.perf_counter()
    if decodes:
        compiled = ahead.compile_decode(mesh, target, draft_for(target), batch, FLAGS.prompt, context)
    else:
        compiled = ahead.compile_draft_step(mesh, target, draft_for(target), batch, context)
    memory = ahead.memory_of(compiled)
    found = {
        "preset": FLAGS.preset,
        "program": FLAGS.program,
        "attention": FLAGS.attention,
        "topology": FLAGS.topology,
        "mesh": dict(mesh.shape),
        "compile_seconds": round(time.perf_counter() - start, 1),
        "bytes_a_device": {**dataclasses.asdict(memory), "total": memory.total},
    }
    if as_json:
        return json.dumps(found)
    parts = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in found["bytes_a_device"].items())
    shape = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
    return f"{FLAGS.program} of {FLAGS.preset} on {FLAGS.topology} ({shape}): GiB a device: {parts}"
