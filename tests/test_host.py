"""Processors that a process may use beside others of its run."""

import os

import pytest

from specexit_jax.parallel import host

LOCAL = {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1234", "JAX_NUM_PROCESSES": "4"}


@pytest.mark.parametrize(
    ("bound", "quota", "environment", "spare"),
    [
        (1, "max 100000", {}, 1),
        (64, "max 100000", {}, 63),
        (96, "400000 100000", {}, 3),
        (96, "no quota", {}, 95),
        (64, None, LOCAL, 15),
        (2, None, LOCAL, 1),
        (64, None, LOCAL | {"JAX_COORDINATOR_ADDRESS": "10.0.0.7:1234"}, 63),
        (64, None, {"SLURM_CPUS_PER_TASK": "8", "SLURM_NTASKS_PER_NODE": "8"}, 7),
        (1, None, {"SLURM_CPUS_PER_TASK": "8"}, 1),
        (64, None, {"SLURM_NTASKS_PER_NODE": "8"}, 7),
    ],
)
def test_processors_are_shared_by_the_processes_of_a_host(monkeypatch, tmp_path, bound, quota, environment, spare):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(bound), raising=False)
    monkeypatch.setattr(host, "_QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert host.spare_processors(environment) == spare
