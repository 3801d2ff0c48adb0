"""One run on many processes: joining them by the launcher's environment variables, and agreeing on what all must do
alike."""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from specexit_jax.backend import on_cpu

CLUSTER = "SPECEXIT_CLUSTER"  # how JAX finds the others: set by launch/slurm.sh, tpu_pod.sh and gke.yaml
_CLUSTERS = ("slurm", "gcetpu", "gketpu")
# set by launch/local_cluster.sh, or by hand
_NAMED = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# Seconds after which a dead process is noticed and the others are ended. JAX's own default, made explicit.
HEARTBEAT_SECONDS = 100
# Seconds that a process which is done waits for the others. Shares of a stage are uneven, and after JAX's default of 5
# minutes the wait fails.
SHUTDOWN_SECONDS = 24 * 3600

_number, _count = 0, 1


class InAll(Exception):
    """An error that every process raises at the same place: collective work, such as a save, can still be completed."""


def initialize() -> None:
    """Joins the other processes of the run; does nothing if no launcher asked for it. Call it before anything runs on a
    device.

    Raises ValueError for an environment that contradicts itself, OSError when the others cannot be reached.
    """
    global _number, _count
    arguments = _arguments(os.environ)
    if arguments is None:
        return
    if jax.config.jax_platforms == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # JAX's preemption service would take over SIGTERM, also in programs that do not train. The training loop handles it
    # itself.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            **arguments,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except RuntimeError as error:
        where = arguments.get("coordinator_address", "the coordinator")
        raise OSError(f"cannot join the other processes at {where} ({str(error).splitlines()[0]})") from error
    _number, _count = jax.process_index(), jax.process_count()


def _arguments(environment: os._Environ | dict[str, str]) -> dict | None:
    """The arguments for jax.distributed.initialize; None for a run of one process."""
    cluster = environment.get(CLUSTER)
    if cluster is not None:
        if cluster not in _CLUSTERS:
            raise ValueError(f"{CLUSTER}={cluster} is unknown: it is one of {', '.join(_CLUSTERS)}, or not set")
        return {"cluster_detection_method": cluster}
    given = [name for name in _NAMED if environment.get(name)]
    if not given:
        return None
    if len(given) < len(_NAMED):
        absent = ", ".join(name for name in _NAMED if name not in given)
        raise ValueError(f"{given[0]} is set but {absent} is not: a run of many processes needs all three")
    address, count, number = (environment[name] for name in _NAMED)
    if not (count.isdecimal() and number.isdecimal() and int(number) < int(count)):
        raise ValueError(f"JAX_PROCESS_ID={number} must be a number from 0 to below JAX_NUM_PROCESSES={count}")
    if int(count) == 1:
        return None
    # One process may see every device of its host; cluster detection is off.
    return {
        "coordinator_address": address,
        "num_processes": int(count),
        "process_id": int(number),
        "cluster_detection_method": "deactivate",
    }


def several() -> bool:
    """Whether this run has more than one process."""
    return _count > 1


def is_first() -> bool:
    """Whether this is the process that prints, and writes whatever is not sharded."""
    return _number == 0


def prefix() -> str:
    """'process 3: ' in a run of several, else nothing."""
    return f"process {_number}: " if several() else ""


def barrier(name: str) -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def anywhere(happened: bool) -> bool:
    """Whether the condition holds in any process. Collective: every process must call it."""
    if jax.process_count() == 1:
        return happened
    return bool(np.any(multihost_utils.process_allgather(np.asarray(happened))))


def from_first(value: np.ndarray) -> np.ndarray:
    """The first process's array. Collective: every process must call it, with an array of the same shape."""
    if jax.process_count() == 1:
        return value
    return np.asarray(multihost_utils.broadcast_one_to_all(value))


class Agreement:
    """The maximum of small integers over all processes, without stalling the device.

    `ask` only queues a reduction after the work that is already dispatched. Read its answer, int32[n], once newer work
    is queued: then the device never idles for it, and every process reads the same answer at the same step. On CPU
    `ask` does wait, because programs run concurrently there and the collectives of two programs could be matched to
    each other.
    """

    def __init__(self) -> None:
        if jax.process_count() == 1:
            self._largest = None
            return
        first = {device.process_index: device for device in reversed(jax.devices())}
        mesh = Mesh(np.array([first[number] for number in sorted(first)]), ("process",))
        self._rows = NamedSharding(mesh, PartitionSpec("process"))
        self._largest = jax.jit(lambda x: x.max(axis=0), out_shardings=NamedSharding(mesh, PartitionSpec()))

    def ask(self, behind: Any, *values: int) -> jax.Array | np.ndarray:
        """behind: arrays of the program that was dispatched last."""
        mine = np.asarray(values, np.int32)
        if self._largest is None:
            return mine
        if on_cpu():
            jax.block_until_ready(behind)
        answer = self._largest(jax.make_array_from_process_local_data(self._rows, mine[None]))
        return jax.block_until_ready(answer) if on_cpu() else answer
