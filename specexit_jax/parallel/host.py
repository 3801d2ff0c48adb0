"""The processors and the memory of this host that this process may use, beside the other processes of its run."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of processor time in a period of microseconds
_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container, in bytes
_USED = Path("/sys/fs/cgroup/memory.current")
_MEMORY = Path("/proc/meminfo")
_LOCAL = ("127.0.0.1", "localhost", "[::1]")


def spare_processors(environment: Mapping[str, str] = os.environ) -> int:
    """Processors of this process less the one that it decodes with; at least 1.

    A process's own are those that it is bound to, at most the quota of its container. Processes of one run on one host, as
    `launch/local_cluster.sh` starts them, share them evenly; under Slurm each has SLURM_CPUS_PER_TASK. Processes that
    --shard numbers do not know of each other.
    """
    return max(1, _processors(environment) // _processes(environment) - 1)


def free_memory(environment: Mapping[str, str] = os.environ) -> int:
    """Bytes of memory that no process uses, or what is left of the container's limit where that is less: this process's even share
    of them. All of the host's where the system does not tell."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", _MEMORY.read_text()) if _MEMORY.is_file() else None
    free = 1024 * int(found[1]) if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = _LIMIT.read_text().strip()
        free = free if limit == "max" else min(free, int(limit) - int(_USED.read_text()))
    except (OSError, ValueError):
        pass
    return max(free, 0) // _on_host(environment)


def _processors(environment: Mapping[str, str]) -> int:
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = environment.get("SLURM_CPUS_PER_TASK", "")
    return max(1, min(bound, _quota() or bound, int(given) if given.isdecimal() else bound))


def _processes(environment: Mapping[str, str]) -> int:
    """Processes of the run that share the processors which this one sees."""
    bound = "SLURM_CPUS_PER_TASK" in environment and not _local(environment)
    return 1 if bound else _on_host(environment)


def _on_host(environment: Mapping[str, str]) -> int:
    """Processes of the run on this host."""
    tasks = environment.get("SLURM_NTASKS_PER_NODE", "")
    return max(1, _local(environment) or (int(tasks) if tasks.isdecimal() else 1))


def _local(environment: Mapping[str, str]) -> int:
    """Processes of a run on this host alone; 0 where there is none."""
    address, count = environment.get("JAX_COORDINATOR_ADDRESS", ""), environment.get("JAX_NUM_PROCESSES", "")
    return int(count) if address.rpartition(":")[0] in _LOCAL and count.isdecimal() else 0


def _quota() -> int | None:
    """Whole processors that the container may use; None without a limit."""
    try:
        granted, period = _QUOTA.read_text().split()
        return None if granted == "max" else max(1, int(granted) // int(period))
    except (OSError, ValueError):
        return None
