"""Rollouts and labels by one of several joined processes, on a mesh of its own devices: what test_joined launches.

python joined_case.py MODELS WORKDIR ADDRESS NUMBER COUNT
"""

import sys
from pathlib import Path

import jax
import ml_collections

from launch import loading
from specexit_jax.annotation.annotate import annotate
from specexit_jax.annotation.forcing import Forcing
from specexit_jax.annotation.rollout import Rollout, roll_out
from specexit_jax.data.splits import Problem
from specexit_jax.engine.methods import make_method
from specexit_jax.storage.shards import Shard

PROBLEMS = [
    Problem(f"chain_sum/test/{i}", "chain_sum", "test", {"question": f"{i}+{i}?", "answer": str(2 * i)})
    for i in range(6)
]


def work(models: str, folder: str, data: int) -> None:
    """This process's share, its rows over `data` devices."""
    mesh = {"data": data, "fsdp": 1, "tensor": 1}
    config = {"target": f"{models}/target", "dtype": "float32", "mesh": mesh}
    session = loading.open_session(ml_collections.ConfigDict(config))
    shard, new = Shard(jax.process_index(), jax.process_count()), 24
    think = make_method(session, "think")
    roll_out(session, PROBLEMS, think, Path(folder), Rollout(0, 2, new, shard=shard))
    # a process looks for traces to label once all are there
    if jax.process_count() > 1:
        jax.experimental.multihost_utils.sync_global_devices("rolled out")
    annotate(session, Path(folder), ("paragraph",), Forcing(2, 2, 5, new), shard)


if __name__ == "__main__":
    models, folder, address, number, count = sys.argv[1:]
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, int(count), int(number))
    work(models, folder, 2)
