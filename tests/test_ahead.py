"""Programs compile ahead of time for TPU slices, sharded, and fit them. Needs libtpu, and is slow:

pip install libtpu; JAX_PLATFORMS=cpu pytest -m slow tests/test_ahead.py -s    # prints the bytes a device
"""

import dataclasses
import importlib.util
import re

import pytest

from specexit_jax.backend import on_cpu, tracing_for
from specexit_jax.parallel.sharding import make_mesh
from specexit_jax.sizing import compile_ahead
from specexit_jax.sizing.presets import TARGETS, draft_for
from specexit_jax.training.draft import DraftTrainingConfig

HBM = 16 * 2**30  # of a v5e chip
libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


def test_tracing_for_another_platform():
    assert on_cpu()
    with tracing_for("tpu"):
        assert not on_cpu()
    assert on_cpu()


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_the_compiler_one_sentence_says_so():
    with pytest.raises(ValueError, match="install libtpu"):
        compile_ahead.tpu_mesh("v5e:2x2")


def test_what_was_compiled_is_said_in_words():
    mesh = make_mesh(2, 4)
    assert compile_ahead.seconds_at(0.5, 8 * 197e12, mesh, "v5e:2x4") == 2.0
    assert compile_ahead.seconds_at(0.5, 1.0, mesh, "v99:1x1") is None
    found = {
        "program": "train",
        "preset": "tiny",
        "rows": 8,
        "tokens": 64,
        "topology": "v5e:2x4",
        "mesh": dict(mesh.shape),
    }
    found["bytes_a_device"] = {"arguments": 2**29, "total": 3 * 2**30}
    plain = (
        "train of tiny, 8 rows of 64, on v5e:2x4 (data 2 x fsdp 4 x tensor 1): GiB a device: arguments 0.50, total 3.00"
    )
    assert compile_ahead.sentence(found) == plain
    found |= {"flops": 5e15, "seconds_at_40_percent": 1.25}
    assert compile_ahead.sentence(found) == plain + "; 5,000 TFLOP a step, 1.2 s at 40 % of the devices' peak"
    found["seconds_at_40_percent"] = None
    assert compile_ahead.sentence(found) == plain + "; 5,000 TFLOP a step"


@pytest.mark.slow
@libtpu
@pytest.mark.parametrize(
    ("preset", "program", "topology", "sizes"),
    [
        ("qwen3-4b", "decode", "v5e:2x2", (1, 1, -1)),
        ("qwen3-4b", "decode with a kernel", "v5e:2x2", (1, 1, -1)),
        ("llama-8b", "decode", "v5e:2x2", (1, 1, -1)),
        ("llama-8b", "decode", "v5e:4x4", (2, 1, 8)),
        ("qwen3-4b", "train", "v5e:2x2", (1, -1, 1)),
        ("llama-8b", "train", "v5e:4x4", (1, -1, 1)),
    ],
)
def test_programs_fit_their_chips(preset, program, topology, sizes):
    mesh = compile_ahead.tpu_mesh(topology, *sizes)
    attention = "pallas" if program.endswith("kernel") else "xla"
    target = dataclasses.replace(TARGETS[preset], dtype="bfloat16", attention=attention)
    if program.startswith("decode"):
        compiled = compile_ahead.compile_decode(mesh, target, draft_for(target), batch=8, prompt=512, context=4096)
        # 36 layers and a draft that runs twice before the loop, three times in it.
        # In memory as read.
        assert not re.search(r" copy\(.*op_name=\"params\.\w+\[[^\"]*(gate_up|qkv|'o)", compiled.as_text())
        assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == (41 if attention == "pallas" else 0)
    else:
        rows = mesh.size * (2 if mesh.size < 16 else 1)
        compiled = compile_ahead.compile_draft_step(
            mesh, target, draft_for(target), rows, 2048, DraftTrainingConfig(steps=4, remat=True)
        )
    memory = compile_ahead.memory_of(compiled)
    print(f"\n{program} of {preset} on {topology}: {memory} total {memory.total / 2**30:.2f} GiB a device")
    assert memory.arguments > 0 and memory.total < HBM
