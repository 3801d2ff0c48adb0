"""What an experiment needs, before anything is spent: of every stage memory, disk, hours and what limits them; what does not fit.

python -m launch.plan --config=configs/qwen3_8b.py --device=h100 --devices=8 [--json]
python -m launch.plan --config=configs/qwen3_8b.py --device=h100 --counts=1,8,16,32    # the table of the config's docstring
Nothing is loaded, compiled or allocated: sizes are those of the config's target (a folder's config.json, or a published model by
its name; --preset where it is neither), rates those of known devices (specexit_jax/sizing/devices.py). --processes: how many
share the devices; by default one for each GPU, as launch/slurm.sh starts them, and one for four TPUs. What is not known of a
model's traces is assumed, and stands under the table: --thinking, --answer, --boundaries, --searched, --accept_length and more.
"""

import dataclasses
import json

from absl import flags

from launch import door
from launch.plan_work import assumed_of, work_of
from specexit_jax.sizing.devices import DEVICES
from specexit_jax.sizing.plan import Assumed, Machine, processes_of
from specexit_jax.sizing.plan_stages import plan
from specexit_jax.sizing.plan_table import as_json, by_devices, table
from specexit_jax.sizing.presets import TARGETS

FLAGS = flags.FLAGS
flags.DEFINE_enum("device", "h100", list(DEVICES), "The accelerator.")
flags.DEFINE_integer("devices", 8, "How many of them, of all processes together.", lower_bound=1)
flags.DEFINE_integer(
    "processes", None, "Processes that share them; default: one a GPU, one for four TPUs.", lower_bound=1
)
flags.DEFINE_integer("hosts", None, "Hosts that the processes run on; default: one for eight devices.", lower_bound=1)
flags.DEFINE_integer("graders", 7, "Processes that grade answers beside each process.", lower_bound=1)
flags.DEFINE_float("usable", 0.9, "Share of a device's memory that arrays may take (XLA_PYTHON_CLIENT_MEM_FRACTION).")
flags.DEFINE_float("of_bandwidth", 0.5, "Share of the bandwidth at which weights are read.")
flags.DEFINE_float("of_caches", 0.5, "Share of the bandwidth at which caches are read.")
flags.DEFINE_float("of_peak", 0.4, "Share of the peak that products reach.")
flags.DEFINE_list("counts", None, "Instead: a table in Markdown for so many devices, as the configs have one.")
flags.DEFINE_bool("json", False, "Print the plan as one line of JSON.")
flags.DEFINE_enum(
    "preset", None, list(TARGETS), "Sizes of the target, where it is neither a folder nor a published model."
)
_ASSUMED = Assumed()
for _name, _what in {
    "prompt": "tokens of a prompt",
    "thinking": "mean tokens of a trace's thinking",
    "answer": "mean tokens of a final or a forced answer",
    "boundaries": "boundaries of a trace",
    "searched": "those of them that config.annotate.search forces",
}.items():
    flags.DEFINE_integer(_name, getattr(_ASSUMED, _name), f"Assumed: {_what}.", lower_bound=1)
flags.DEFINE_float(
    "accept_length", _ASSUMED.accept_length, "Assumed: tokens a step of the trained draft.", lower_bound=1
)
flags.DEFINE_float(
    "kept", _ASSUMED.kept, "Assumed: share of the thinking that exits keep.", lower_bound=0, upper_bound=1
)
flags.DEFINE_float(
    "pair_seconds", None, "Assumed: seconds that the checker takes to judge a pair; default: by its kind."
)


def machine_of(devices: int) -> Machine:
    """The machine that the flags describe, with so many devices."""
    device = DEVICES[FLAGS.device]
    processes, hosts = FLAGS.processes or processes_of(device, devices), FLAGS.hosts or -(-devices // 8)
    for name in ("usable", "of_bandwidth", "of_caches", "of_peak"):
        if not 0 < FLAGS[name].value <= 1:
            raise ValueError(f"--{name} is a share between 0 and 1, not {FLAGS[name].value:g}.")
    return Machine(
        device,
        devices,
        processes,
        hosts,
        FLAGS.graders,
        FLAGS.usable,
        FLAGS.of_bandwidth,
        FLAGS.of_peak,
        FLAGS.of_caches,
    )


def check():
    """Returns the work, and what is assumed of it."""
    config = door.config()
    given = {field.name: FLAGS[field.name].value for field in dataclasses.fields(Assumed) if FLAGS[field.name].present}
    assumed = assumed_of(config, given, FLAGS.preset)
    return work_of(config, assumed, FLAGS.preset), assumed


def main() -> None:
    work, assumed = check()
    if FLAGS.counts:
        door.say(by_devices(work, assumed, machine_of, door.whole_numbers("counts", FLAGS.counts)))
        return
    machine = machine_of(FLAGS.devices)
    stages = plan(work, assumed, machine)
    if FLAGS.json:
        door.say(json.dumps(as_json(stages, machine) | {"assumed": dataclasses.asdict(assumed)}))
        return
    door.say(table(stages, work, assumed, machine))


if __name__ == "__main__":
    door.define_config(workdir=False)
    door.run(main)
