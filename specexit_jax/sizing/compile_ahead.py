"""Programs compiled ahead of time for accelerators that this machine does not have, with their memory use.

A topology ("v5e:2x2", "h100:4") is a description. Compiling for it needs the compiler alone: the package libtpu for TPUs;
jax-cuda12-plugin and jax-cuda12-pjrt of jax's version for GPUs (`pip install --no-deps`). Nothing is allocated: parameters,
caches and batches are shapes with shardings. For GPUs products are not tuned, and cuDNN's kernels do not compile so.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from specexit_jax.backend import tracing_for
from specexit_jax.decoding.loop.speculative import decode
from specexit_jax.decoding.rows import PromptRows
from specexit_jax.decoding.sampling import Sampling, SamplingRows, placeholder_keys
from specexit_jax.decoding.spec import DecodeParams, DecodeSpec
from specexit_jax.exits.boundaries import TokenBoundaries
from specexit_jax.exits.policy import unreachable
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.models.draft import draft_of, init_draft
from specexit_jax.models.layer_stack import stack_layers
from specexit_jax.models.target import Target, init_target
from specexit_jax.parallel.layouts import laid_out
from specexit_jax.parallel.sharding import make_mesh, tree_shardings
from specexit_jax.parallel.tree_paths import flatten
from specexit_jax.sizing.devices import Device, device_of, gpu_target
from specexit_jax.sizing.plan_rows import unsplit
from specexit_jax.training.draft import DraftTrainingConfig, draft_step, init_draft_state
from specexit_jax.training.optimizer import OptimizerConfig, make_optimizer

P = PartitionSpec


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device. arguments: parameters, states, inputs; temporaries: their peak; total: what must fit into
    memory."""

    arguments: int
    outputs: int
    temporaries: int
    aliased: int
    program: int

    @property
    def total(self) -> int:
        return self.arguments + self.outputs + self.temporaries + self.program - self.aliased


def device_mesh(topology: str, data: int = 1, fsdp: int = 1, tensor: int = -1) -> Mesh:
    """A (data, fsdp, tensor) mesh of a described TPU slice ("v5e:2x2") or of GPUs of one host ("h100:4").

    Raises ValueError where the device is not known, their number is none, or the compiler not installed.
    """
    device, number = device_of(topology), topology.partition(":")[2] or "1"
    if device.gpu and not (number.isdecimal() and int(number)):
        raise ValueError(f"No topology {topology!r}: after a GPU comes how many, as in h100:4.")
    try:
        devices = _gpus(device, int(number)) if device.gpu else _tpus(topology)
    except Exception as error:  # the compilers' plugins raise types of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        needs = "jax-cuda12-plugin and jax-cuda12-pjrt" if device.gpu else "libtpu"
        raise ValueError(
            f"No topology {topology!r} ({reason}): install {needs} beside jax, and name one like v5e:2x2 or h100:4."
        ) from None
    return make_mesh(data, fsdp, tensor, devices=devices)


def _tpus(topology: str) -> list:
    alone = {"chips_per_host_bounds": [1, 1, 1]} if topology.endswith(":1x1") else {}  # hosts of v5e have 2x2
    return topologies.get_topology_desc(platform="tpu", topology_name=topology, **alone).devices


def _gpus(device: Device, number: int) -> list:
    described = {"target_config": gpu_target(device), "topology": f"1x1x{number}"}
    return topologies.get_topology_desc(platform="cuda", **described).devices


def seconds_at(share: float, flops: float, mesh: Mesh, topology: str) -> float:
    """Seconds that `flops` take on all devices of the mesh at a share of their peak."""
    return flops / (share * device_of(topology).peak * mesh.size)


def platform_of(mesh: Mesh) -> str:
    """What programs for the mesh are traced for: "tpu" or "gpu"."""
    return mesh.devices.flat[0].platform


def _over_rows(mesh: Mesh, batch: int) -> NamedSharding:
    """Raises ValueError where the rows are not shared evenly."""
    if wrong := unsplit(batch, mesh.devices.shape):
        raise ValueError(f"{wrong}: see --batch_size and --mesh.")
    return NamedSharding(mesh, P(("data", "fsdp")))


def compile_decode(
    mesh: Mesh, target: TargetConfig, draft: DraftConfig, batch: int, prompt: int, context: int, draft_tokens: int = 3
) -> jax.stages.Compiled:
    """The whole decoding loop with drafts, signals and exit rule; rows over (data, fsdp), parameters by the table."""
    # One live prefix, the whole buffer: the largest program.
    target = draft.reading(target)
    spec = DecodeSpec(target, context, (0,), (1,), draft, draft_tokens, live_prefixes=(1 << 30,))
    params = DecodeParams(
        _placed(mesh, functools.partial(init_target, target), target.dtype),
        _placed(mesh, functools.partial(init_draft, draft), draft.dtype),
        _whole(mesh, (draft.draft_vocab_size,), "int32"),
    )
    rows = _over_rows(mesh, batch)
    row = functools.partial(jax.ShapeDtypeStruct, sharding=rows)
    keys = jax.eval_shape(lambda: placeholder_keys(0, batch))
    sampling = SamplingRows.of([Sampling()] * batch)
    asked = PromptRows(
        prompts=row((batch, prompt), jnp.int32),
        prompt_length=row((batch,), jnp.int32),
        keys=row(keys.shape, keys.dtype),
        thinking=row((batch,), jnp.bool_),
        max_length=row((batch,), jnp.int32),
        sampling=jax.tree.map(lambda leaf: row(leaf.shape, leaf.dtype), sampling),
        may_exit=row((batch,), jnp.bool_),
    )
    arguments = (
        asked,
        jax.tree.map(lambda leaf: _whole(mesh, leaf.shape, leaf.dtype), unreachable(signals=draft.signal_names)),
        TokenBoundaries(_whole(mesh, (target.vocab_size,), "bool")),
    )
    with tracing_for(platform_of(mesh)), jax.set_mesh(mesh):
        return decode.lower(spec, params, *arguments).compile()


def compile_draft_step(
    mesh: Mesh, target: TargetConfig, draft: DraftConfig, batch: int, tokens: int, config: DraftTrainingConfig
) -> jax.stages.Compiled:
    """One step of draft training: target forward, training-time test, AdamW; draft and moments sharded by the table."""
    optimizer = make_optimizer(OptimizerConfig(total_steps=1000))

    def fresh():
        return init_draft_state(init_draft(draft, jax.random.key(0)), optimizer, config, draft)

    state = jax.eval_shape(fresh)
    state = jax.tree.map(_with_sharding, state, tree_shardings(state, mesh))
    rows = _over_rows(mesh, batch)
    wide = {"labels": (3,), "label_mask": (3,)}
    kinds = {
        "tokens": jnp.int32,
        "segment_ids": jnp.int32,
        "positions": jnp.int32,
        "loss_mask": jnp.bool_,
        "labels": jnp.float32,
        "label_mask": jnp.float32,
    }
    inputs = {
        name: jax.ShapeDtypeStruct((batch, tokens, *wide.get(name, ())), dtype, sharding=rows)
        for name, dtype in kinds.items()
    }
    target = draft.reading(target)
    step = functools.partial(
        draft_step, target=Target(target), draft=draft_of(draft), optimizer=optimizer, config=config
    )
    parameters = _placed(mesh, lambda key: stack_layers(init_target(target, key)), target.dtype)
    d2t = _whole(mesh, (draft.draft_vocab_size,), "int32")
    with tracing_for(platform_of(mesh)), jax.set_mesh(mesh):
        return jax.jit(step, donate_argnums=0).lower(state, inputs, parameters, d2t).compile()


def memory_of(compiled: jax.stages.Compiled) -> Memory:
    """The compiler's memory report for one device."""
    found = compiled.memory_analysis()
    return Memory(
        found.argument_size_in_bytes,
        found.output_size_in_bytes,
        found.temp_size_in_bytes,
        found.alias_size_in_bytes,
        found.generated_code_size_in_bytes,
    )


def sentence(found: dict) -> str:
    """What was compiled, in words: its sizes, GiB a device; of a step its FLOPs; of a GPU's loop what an iteration does."""
    parts = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in found["bytes_a_device"].items())
    shape = " x ".join(f"{name} {size}" for name, size in found["mesh"].items())
    head = f"{found['program']} of {found['preset']} ({found['draft_kind']}), {found['rows']} rows of {found['tokens']}"
    told = f"{head}, on {found['topology']} ({shape}): GiB a device: {parts}"
    if found["bytes_a_device"]["total"] > (has := device_of(found["topology"]).memory):
        told += f", and it has {has / 2**30:.1f}: this does not fit"
    if "kernels_an_iteration" in found:
        told += (
            f"; an iteration launches {found['kernels_an_iteration']} kernels and moves {found['moved_bytes'] / 1e9:.2f} GB, "
            f"{found['moved_bytes'] / found['floor_bytes']:.2f} times the least"
        )
    if found.get("collectives"):
        told += "; collectives: " + ", ".join(f"{number} {name}" for name, number in found["collectives"].items())
    if "flops" not in found:
        return told
    seconds = found["seconds_at_40_percent"]
    return f"{told}; {found['flops'] / 1e12:,.0f} TFLOP a step, {seconds:.1f} s at 40 % of the devices' peak"


def _placed(mesh: Mesh, init, dtype: str) -> Any:
    """Parameters as shapes in `dtype`, with the shardings and layouts that `placer` would give them."""
    tree = jax.eval_shape(init, jax.random.key(0))
    shapes, shardings = flatten(tree), jax.tree.leaves(tree_shardings(tree, mesh))
    leaves = [
        jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype), sharding=laid_out(path, sharding, leaf.shape))
        for (path, leaf), sharding in zip(shapes.items(), shardings, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _with_sharding(leaf, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _whole(mesh: Mesh, shape: tuple[int, ...], dtype) -> jax.ShapeDtypeStruct:
    """The shape of an array that is replicated on every device."""
    return jax.ShapeDtypeStruct(shape, np.dtype(dtype), sharding=NamedSharding(mesh, P()))
