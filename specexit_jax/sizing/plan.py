"""What an experiment needs before it starts: of every stage the memory of a device and a host, disk, hours, and what limits it.

All of it is arithmetic over shapes and rates (plan_memory.py, plan_hours.py) and over what is assumed of the model's traces.
Memory is that of the worst case, in which every row is as long as it may become; hours are of average traces.
"""

import dataclasses
from collections.abc import Mapping

from specexit_jax.engine.placement import Auto
from specexit_jax.engine.specs import buffer_for
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.sizing.devices import Device
from specexit_jax.sizing.plan_hours import Rates, live_prefix
from specexit_jax.sizing.plan_memory import Mesh, mesh_over
from specexit_jax.training.draft import DraftTrainingConfig
from specexit_jax.training.optimizer import OptimizerConfig

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Work:
    """What the stages do, as the config says. traces: of every split that rollouts make; tested: those of the evaluation's split;
    evaluated: traces that the evaluation makes or reads; tasks: of that split; forced: boundaries of a trace at which answers are
    forced, by split (of "test" too); scored: splits whose signals calibration reads. mesh, train_mesh: data, fsdp, tensor, one of
    them may be -1."""

    target: TargetConfig
    draft: DraftConfig
    traces: Mapping[str, int]
    tested: int
    evaluated: int
    tasks: int
    max_new_tokens: int
    mesh: tuple[int, int, int]
    rollout_rows: int | Auto
    drafted: int
    annotate_rows: int
    branches: int
    max_answer: int
    keys: int
    forced: Mapping[str, float]
    scored: tuple[str, ...]
    steps: int
    train_rows: int
    row_length: int
    train_mesh: tuple[int, int, int]
    losses: DraftTrainingConfig
    optimizer: OptimizerConfig
    learn: str
    online: bool
    signal_positions: int
    evaluate_rows: int | Auto
    methods: tuple[str, ...]
    timed: int
    rounds: int


@dataclasses.dataclass(frozen=True)
class Assumed:
    """What a model's traces are taken to be like, on average: tokens of a prompt, of thinking, of an answer (final or forced);
    boundaries, and those of them that a search for T* forces; tokens that a step of the trained draft yields; the share of the
    thinking that exits keep; seconds that a checker takes to judge a pair."""

    prompt: int = 200
    thinking: int = 10_000
    answer: int = 400
    boundaries: int = 200
    searched: int = 16
    accept_length: float = 2.5
    kept: float = 0.4
    pair_seconds: float = 0.0

    @property
    def written(self) -> int:
        """Generated tokens of a trace."""
        return self.thinking + self.answer


@dataclasses.dataclass(frozen=True)
class Machine:
    """devices of one kind, shared evenly by processes; hosts that these run on; processes that grade beside each; usable: the
    share of a device's memory that arrays may take."""

    device: Device
    devices: int
    processes: int
    hosts: int = 1
    graders: int = 7
    usable: float = 0.9
    of_bandwidth: float = 0.5
    of_peak: float = 0.4
    of_caches: float = 0.5

    def __post_init__(self):
        if self.devices < 1:
            raise ValueError(f"A plan needs at least one device, not {self.devices}.")
        if self.devices % self.processes:
            raise ValueError(
                f"{self.devices} devices are not shared evenly by {self.processes} processes: see --processes."
            )

    @property
    def rates(self) -> Rates:
        return Rates(self.device.bandwidth, self.device.peak, self.of_bandwidth, self.of_peak, self.of_caches)

    @property
    def room(self) -> int:
        """Bytes of one device that arrays may take."""
        return int(self.usable * self.device.memory)


@dataclasses.dataclass(frozen=True)
class Stage:
    """device: bytes on one device by what they are; host, disk: bytes of all processes of a host, and of what is written; limit:
    what the hours are spent on; wrong: why the stage cannot run so, "" where it can; changes: what to change then."""

    name: str
    device: Mapping[str, int]
    host: int
    disk: int
    hours: float
    limit: str
    wrong: str = ""
    changes: tuple[str, ...] = ()

    @property
    def whole(self) -> int:
        """Bytes on one device."""
        return sum(self.device.values())


def processes_of(device: Device, devices: int) -> int:
    """How many processes the launchers start: one a GPU (launch/slurm.sh), one a host of four TPUs."""
    return devices if device.gpu else -(-devices // 4)


def meshes(work: Work, machine: Machine) -> tuple[Mesh, Mesh]:
    """The mesh of one process that decodes, and that of all processes together in training."""
    decoding = mesh_over(work.mesh, machine.devices // machine.processes)
    return decoding, mesh_over(work.train_mesh, machine.devices, "train.mesh")


def longest(work: Work, assumed: Assumed) -> int:
    """The positions that caches have once a row has all the tokens that it may have."""
    buffer = min(buffer_for(assumed.prompt, work.max_new_tokens), work.target.max_position)
    return live_prefix(assumed.prompt + work.max_new_tokens, buffer)
