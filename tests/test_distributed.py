"""Reading the environment variables that describe other processes."""

import pytest

from launch import door
from specexit_jax.parallel import distributed

GIVEN = {"JAX_COORDINATOR_ADDRESS": "host:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}


def test_a_run_that_nobody_launched_is_one_process():
    assert distributed._arguments({}) is None
    assert distributed._arguments({"SLURM_NTASKS": "4", "TPU_WORKER_HOSTNAMES": "a,b"}) is None
    assert distributed._arguments(GIVEN | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}) is None
    assert not distributed.several() and distributed.is_first() and distributed.prefix() == ""


def test_the_named_coordinator_is_joined_and_nothing_else_is_looked_for():
    arguments = distributed._arguments(GIVEN)
    assert (arguments["coordinator_address"], arguments["num_processes"], arguments["process_id"]) == ("host:1", 4, 3)
    assert arguments["cluster_detection_method"] == "deactivate"


@pytest.mark.parametrize("wrong, sentence", [
    ({"JAX_PROCESS_ID": ""}, "JAX_COORDINATOR_ADDRESS is set but JAX_PROCESS_ID is not"),
    ({"JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID=4 must be a number from 0 to below JAX_NUM_PROCESSES=4"),
    ({"JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID=-1 must be a number"),
    ({"SPECEXIT_CLUSTER": "lsf"}, "SPECEXIT_CLUSTER=lsf is unknown: it is one of slurm, gcetpu, gketpu"),
])  # fmt: skip
def test_a_contradiction_is_named(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        distributed._arguments(GIVEN | wrong)


def test_only_the_first_process_speaks_and_every_error_is_numbered(monkeypatch, capsys):
    monkeypatch.setattr(distributed, "_number", 3)
    monkeypatch.setattr(distributed, "_count", 4)
    codes = []
    monkeypatch.setattr(door.os, "_exit", codes.append)  # sys.exit would wait for the others
    door.say("hello")
    with pytest.raises(SystemExit):
        door.fail("too bad")
    out, error = capsys.readouterr()
    assert (out, error, codes) == ("", "process 3: error: too bad\n", [1])
