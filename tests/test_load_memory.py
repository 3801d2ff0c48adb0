"""Loading holds one parameter at a time: peak memory of a 4.4 GB checkpoint, on one device and sharded over four.

pytest -m slow tests/test_load_memory.py -s    # prints seconds and bytes; needs 5 GB of disk and 10 GB of memory
"""

import json
import subprocess
import sys
import textwrap

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from specexit_jax.models.checkpoints.hf import target_json
from specexit_jax.models.checkpoints.hf_layout import shapes, target_layout
from specexit_jax.models.config import TargetConfig

CONFIG = TargetConfig("llama", 64_000, 2048, 8192, 30, 16, 8, 128, capture=(1, 2, 3))
GIB = 2**30
LOADER = """
    import json, resource, sys, time
    import jax
    jax.config.update("jax_num_cpu_devices", int(sys.argv[2]))
    from specexit_jax.models.checkpoints.hf import load_target
    from specexit_jax.models.checkpoints.hf_layout import on_device
    from specexit_jax.parallel.sharding import make_mesh, placer
    place = on_device if sys.argv[2] == "1" else placer(make_mesh(1, 1, -1))
    jax.block_until_ready(jax.numpy.zeros(1))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    _, params = load_target(sys.argv[1], "bfloat16", place)
    jax.block_until_ready(params)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    leaves = jax.tree.leaves(params)
    bytes_ = sum(shard.data.nbytes for leaf in leaves for shard in leaf.addressable_shards)
    largest = max(leaf.nbytes for leaf in leaves)
    print(json.dumps({"seconds": seconds, "peak": 1024 * peak, "parameters": bytes_, "largest": largest}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Shards of one layer each; zeros are as long as any other weight."""
    folder = tmp_path_factory.mktemp("big")
    (folder / "config.json").write_text(json.dumps(target_json(CONFIG, "bfloat16")))
    weight_map, shards = {}, {}
    for name, shape in shapes(target_layout(CONFIG)).items():
        shard = ".".join(name.split(".")[1:3]) if ".layers." in name else name
        shards.setdefault(f"{shard}.safetensors", {})[name] = shape
    for shard, members in shards.items():
        tensors = {name: np.full(shape, 0.5, ml_dtypes.bfloat16) for name, shape in members.items()}
        save_file(tensors, folder / shard)
        weight_map |= dict.fromkeys(members, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert sum(path.stat().st_size for path in folder.iterdir()) > 4e9
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 4])
def test_peak_memory_beyond_the_parameters(folder, devices):
    command = [sys.executable, "-c", textwrap.dedent(LOADER), str(folder), str(devices)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    print(f"\n{devices} device(s): {told}")
    assert told["parameters"] > 4e9
    assert told["peak"] - told["parameters"] < told["largest"] + GIB
