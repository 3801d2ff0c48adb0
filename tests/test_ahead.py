"""Programs compile ahead of time for TPU slices, sharded, and fit them. Needs libtpu, and is slow:

pip install libtpu; JAX_PLATFORMS=cpu pytest -m slow tests/test_ahead.py -s    # prints the bytes a device
"""

import dataclasses
import importlib.util

import pytest

from specexit_jax import ahead
from specexit_jax.backend import on_cpu, tracing_for
from specexit_jax.shapes import TARGETS, draft_for
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
        ahead.tpu_mesh("v5e:2x2")


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
    mesh = ahead.tpu_mesh(topology, *sizes)
    attention = "pallas" if program.endswith("kernel") else "xla"
    target = dataclasses.replace(TARGETS[preset], dtype="bfloat16", attention=attention)
    if program.startswith("decode"):
        compiled = ahead.compile_decode(mesh, target, draft_for(target), batch=8, prompt=512, context=4096)
        # 36 layers and a draft that runs twice before the loop, three times in it.
        assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == (41 if attention == "pallas" else 0)
    else:
        rows = mesh.size * (2 if mesh.size < 16 else 1)
        compiled = ahead.compile_draft_step(
            mesh, target, draft_for(target), rows, 2048, DraftTrainingConfig(steps=4, remat=True)
        )
    memory = ahead.memory_of(compiled)
    print(f"\n{program} of {preset} on {topology}: {memory} total {memory.total / 2**30:.2f} GiB a device")
    assert memory.arguments > 0 and memory.total < HBM
