"""Programs compile ahead of time for TPU slices and GPUs, sharded, and fit them. Needs their compilers, and is slow:

pip install libtpu; pip install --no-deps jax-cuda12-plugin jax-cuda12-pjrt    # of jax's version
JAX_PLATFORMS=cpu pytest -m slow tests/test_ahead.py -s    # prints the bytes a device
"""

import dataclasses
import importlib.util
import re

import jax
import pytest

from specexit_jax.backend import on_cpu, tracing_for
from specexit_jax.decoding.spec import DecodeSpec
from specexit_jax.models.target import init_target
from specexit_jax.parallel.sharding import make_mesh
from specexit_jax.sizing import compile_ahead
from specexit_jax.sizing.devices import device_of
from specexit_jax.sizing.presets import TARGETS, draft_for
from specexit_jax.sizing.program_text import iteration_of
from specexit_jax.sizing.traffic import traffic
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
        compile_ahead.device_mesh("v5e:2x2")


def test_rows_that_a_mesh_does_not_share_evenly_are_refused():
    mesh, target = make_mesh(2, 2, 2), TARGETS["tiny"]
    with pytest.raises(
        ValueError, match="6 rows do not split over data x fsdp = 4 devices: see --batch_size and --mesh"
    ):
        compile_ahead.compile_decode(mesh, target, draft_for(target), 6, 64, 128)
    with pytest.raises(ValueError, match="3 rows do not split"):
        compile_ahead.compile_draft_step(mesh, target, draft_for(target), 3, 128, DraftTrainingConfig())


def test_what_was_compiled_is_said_in_words():
    mesh = make_mesh(2, 4)
    assert compile_ahead.seconds_at(0.5, 8 * 197e12, mesh, "v5e:2x4") == 2.0
    with pytest.raises(ValueError, match="No device 'v99' is known"):
        compile_ahead.seconds_at(0.5, 1.0, mesh, "v99:1x1")
    found = {
        "program": "train",
        "preset": "tiny",
        "draft_kind": "mtp",
        "rows": 8,
        "tokens": 64,
        "topology": "v5e:2x4",
        "mesh": dict(mesh.shape),
    }
    found["bytes_a_device"] = {"arguments": 2**29, "total": 3 * 2**30}
    plain = "train of tiny (mtp), 8 rows of 64, on v5e:2x4 (data 2 x fsdp 4 x tensor 1): GiB a device: arguments 0.50, total 3.00"
    assert compile_ahead.sentence(found) == plain
    more = found | {"bytes_a_device": {"total": 17 * 2**30}}
    assert compile_ahead.sentence(more).endswith("GiB a device: total 17.00, and it has 16.0: this does not fit")
    found |= {"flops": 5e15, "seconds_at_40_percent": 1.25}
    assert compile_ahead.sentence(found) == plain + "; 5,000 TFLOP a step, 1.2 s at 40 % of the devices' peak"
    found = {name: value for name, value in found.items() if name not in ("flops", "seconds_at_40_percent")}
    found |= {
        "kernels_an_iteration": 700,
        "moved_bytes": 3 * 10**9,
        "floor_bytes": 2 * 10**9,
        "collectives": {"all-reduce": 9},
    }
    iteration = "; an iteration launches 700 kernels and moves 3.00 GB, 1.50 times the least; collectives: 9 all-reduce"
    assert compile_ahead.sentence(found) == plain + iteration


@pytest.mark.parametrize("topology", ["h100:x", "h100:0", "h100:-1", "h100:1.5"])
def test_a_number_of_gpus_that_is_none_is_said(topology):
    with pytest.raises(ValueError, match=f"No topology '{topology}': after a GPU comes how many"):
        compile_ahead.device_mesh(topology)


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
        ("mimo-7b", "decode", "v5e:2x2", (1, 1, -1)),
        ("mimo-7b", "train", "v5e:4x4", (1, -1, 1)),
    ],
)
def test_programs_fit_their_chips(preset, program, topology, sizes):
    mesh = compile_ahead.device_mesh(topology, *sizes)
    attention = "pallas" if program.endswith("kernel") else "xla"
    target = dataclasses.replace(TARGETS[preset], dtype="bfloat16", attention=attention)
    draft = draft_for(target, "mtp" if preset == "mimo-7b" else "eagle3")
    if program.startswith("decode"):
        compiled = compile_ahead.compile_decode(mesh, target, draft, batch=8, prompt=512, context=4096)
        # 36 layers and a draft that runs three times before the loop (the first token's pair, two drafts), three times in it.
        # In memory as read.
        assert not re.search(r" copy\(.*op_name=\"params\.\w+\[[^\"]*(gate_up|qkv|'o)\W", compiled.as_text())
        assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == (42 if attention == "pallas" else 0)
    else:
        rows = mesh.size * (2 if mesh.size < 16 else 1)
        compiled = compile_ahead.compile_draft_step(
            mesh, target, draft, rows, 2048, DraftTrainingConfig(steps=4, remat=True)
        )
    memory = compile_ahead.memory_of(compiled)
    print(f"\n{program} of {preset} on {topology}: {memory} total {memory.total / 2**30:.2f} GiB a device")
    assert memory.arguments > 0 and memory.total < HBM


cuda = pytest.mark.skipif(importlib.util.find_spec("jax_cuda12_plugin") is None, reason="no compiler for GPUs")


@pytest.mark.skipif(importlib.util.find_spec("jax_cuda12_plugin") is not None, reason="the compiler is installed")
def test_without_the_compiler_for_gpus_one_sentence_says_so():
    with pytest.raises(ValueError, match="install jax-cuda12-plugin"):
        compile_ahead.device_mesh("h100:1")


@pytest.mark.slow
@cuda
@pytest.mark.parametrize(
    ("preset", "rows", "context", "attention", "most_kernels", "most_moved"),
    [
        ("qwen3-4b", 8, 4096, "xla", 720, 1.2),
        ("llama-8b", 1, 2048, "xla", 630, 1.03),
        ("llama-8b", 1, 32_768, "xla", 800, 1.1),
        ("qwen-1.5b", 64, 2048, "xla", 550, 1.73),
        ("qwen3-4b", 8, 4096, "pallas", 580, 1.11),
        ("llama-8b", 1, 32_768, "pallas", 575, 1.03),
        ("qwen-1.5b", 64, 2048, "pallas", 530, 1.57),
        ("mimo-7b", 8, 4096, "xla", 690, 1.18),
        ("mimo-7b", 1, 2048, "xla", 700, 1.03),
        ("mimo-7b", 8, 4096, "pallas", 580, 1.10),
    ],
)
def test_an_iteration_on_an_h100_lays_nothing_out_again(preset, rows, context, attention, most_kernels, most_moved):
    """No weight is transposed, no cache copied, padded or sliced; bars of kernels and bytes."""
    mesh = compile_ahead.device_mesh("h100:1")
    target = dataclasses.replace(TARGETS[preset], dtype="bfloat16", attention=attention)
    draft = draft_for(target, "mtp" if preset == "mimo-7b" else "eagle3")
    target = draft.reading(target)
    compiled = compile_ahead.compile_decode(mesh, target, draft, batch=rows, prompt=512, context=context)
    found = iteration_of(compiled.as_text())
    weights = {
        leaf.size * 2 for leaf in jax.tree.leaves(jax.eval_shape(lambda: init_target(target, jax.random.key(0))))
    }
    apart = [
        each for each in found.written if not each.in_place and "dot" not in each.operation
    ]  # no result of a product
    again = [each for each in apart if each.bytes // each.number in weights]
    assert not [each for each in again if each.bytes > 1 << 20]
    capacity = DecodeSpec(target, context, (0,), (1,), draft, 3, live_prefixes=(1 << 30,))
    with tracing_for("gpu"):
        one = rows * target.num_kv_heads * target.head_dim * capacity.capacity * 2  # bytes of one layer's keys
    large = [each for each in apart if each.bytes // each.number >= one]
    assert not [each for each in large if f"{target.vocab_size}]" not in each.shape], (
        "logits of 64 rows alone are as large"
    )
    ratio = found.moved / traffic(capacity, rows, context).whole
    print(f"\n{preset}, {rows} rows of {context}: {found.launches} kernels, {ratio:.2f} times the least bytes")
    assert found.launches <= most_kernels and ratio <= most_moved
    assert compile_ahead.memory_of(compiled).total < device_of("h100").memory
