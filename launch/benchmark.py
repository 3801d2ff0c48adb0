"""Measures the cost of decoding, in seven ways.

1. At the shapes of a model, with random weights, beside the bytes it must move at this device's copy bandwidth:

python -m launch.benchmark --preset=smollm2-135m --context=512 --draft_tokens=3 --simulate_accept_length=3 [--json]
--batch_size=B, --buffer=S, --tree=depth,top_k,total, --dtype, --iterations, --repeats shape the run. --signals: the share of
signals, exit score and exit rule. --peers: a loop driven by the host, and transformers' generate (needs torch) on the same
weights; on a GPU that they share, with XLA_PYTHON_CLIENT_PREALLOCATE=false. NPROC: threads on a CPU (one, for one row). Also in
way 4: --draft_kind=eagle3|mtp, for mtp with --draft_family; --attention=pallas: kernels for TPUs and GPUs read the caches.

2. Signals and exit rule of a real model, by unreachable thresholds against a loop without, interleaved:
python -m launch.benchmark --config=configs/embedded.py --workdir=runs/embedded [--rounds=50] [--limit=1] [--json]

3. A batch whose slots are refilled against closed batches, on the config's own model:
python -m launch.benchmark --config=configs/embedded.py --workdir=runs/embedded --throughput [--batch_size=8] [--limit=30]

4. Compiled ahead of time (for TPUs with libtpu, for GPUs with jax-cuda12-plugin and jax-cuda12-pjrt; JAX_PLATFORMS=cpu), with the
bytes a device, and for a GPU what an iteration of the loop launches, writes and moves:
python -m launch.benchmark --compile_only --topology=v5e:2x2|h100:1 --preset=qwen3-4b --program=decode|train [--json]
--mesh=data,fsdp,tensor; of a training step also --row_attention=auto|plain|fused, --chunk, --sliding_window; it says the
FLOPs too, and their time at 40 % of the peak.

5. Answers forced at the boundaries of a long trace, one at a time and many on one prefix, with random weights:
python -m launch.benchmark --annotation --preset=bundled --context=16384 [--branches=8,32] [--boundary_every=64] [--json]

6. Rollouts of the config's own model whose answers a slow checker grades, in other processes and in this one:
python -m launch.benchmark --config=configs/embedded.py --workdir=runs/embedded --grading --limit=20 --rounds=7
--checker=busy computes where the default waits, 0.3 s a pair; --workers=8 processes.

7. A server beside its own slots under load, and beside SpecExit.generate for a request that is alone; clients are another process:
python -m launch.benchmark --serving [--config=configs/embedded.py --workdir=runs/embedded] [--clients=16] [--limit=16] [--json]
"""

from absl import flags

from launch import annotation_cost, compile_only, door, grading_cost, loop_cost, serving_cost, signal_cost, throughput
from specexit_jax.models.config import ATTENTIONS
from specexit_jax.models.draft import KINDS
from specexit_jax.models.mtp_config import FAMILIES
from specexit_jax.sizing.presets import TARGETS

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "preset",
    "bundled",
    list(TARGETS),
    "Model whose shapes the target has, with random weights; the draft has the same widths.",
)
flags.DEFINE_enum("draft_kind", "eagle3", list(KINDS), "Kind of the draft of a preset.")
flags.DEFINE_enum("draft_family", "mimo", list(FAMILIES), "With --draft_kind=mtp: whose conventions it follows.")
flags.DEFINE_integer("batch_size", None, "Rows of the batch; default: 1, with --compile_only 8.", lower_bound=1)
flags.DEFINE_integer(
    "context",
    None,
    "Tokens of each row when the timing starts (default: 512); with --compile_only the most tokens of a row (4096).",
    lower_bound=1,
)
flags.DEFINE_enum(
    "attention", "xla", list(ATTENTIONS), "Attention over the caches of a preset; pallas: kernels for TPUs and GPUs."
)
flags.DEFINE_bool("json", False, "Print the result as one line of JSON.")


def check():
    """Returns the mode that the flags choose, after checking what it needs."""
    ways = (annotation_cost, compile_only, throughput, grading_cost, serving_cost, signal_cost)
    way = next((way for way in ways if way.wanted()), loop_cost)
    way.check()
    return way


def main() -> None:
    door.say(check().report(FLAGS.json))


if __name__ == "__main__":
    door.define_config(required=False)
    door.run(main)
