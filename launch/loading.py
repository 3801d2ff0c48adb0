"""Models in the dtype and on the devices that a config or the flags name."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import ml_collections
from jax.sharding import Mesh

from launch import door
from specexit_jax.parallel.sharding import AXES, make_mesh

if TYPE_CHECKING:
    from specexit_jax.engine.session import Session


def open_session(config: ml_collections.ConfigDict, draft: str | os.PathLike | None = None) -> "Session":
    """The config's target, and a draft, in its dtype and with its attention, sampled as config.sampling says; sharded over its mesh
    where that has more than one device."""
    from specexit_jax.engine.session import load_session  # three seconds of imports, which not every entry point needs

    mesh = _mesh(config.mesh, jax.local_devices())  # every process decodes what is its own
    return _sampled(
        load_session(config.target, draft or None, config.dtype, mesh, None, config.get("attention", "xla")), config
    )


def open_training_session(config: ml_collections.ConfigDict) -> "Session":
    """The config's target sharded over the devices of all processes, as config.train.mesh says, its layers stacked."""
    from specexit_jax.engine.session import load_session
    from specexit_jax.models.layer_stack import stack_layers
    from specexit_jax.parallel.sharding import stacker

    mesh = _mesh(config.train.mesh, jax.devices())
    if mesh is None:
        door.alone("training on a mesh of one device")
    session = load_session(config.target, None, config.dtype, mesh)
    params = session.params.replace(target=stack_layers(session.params.target, stacker(mesh)))
    return _sampled(dataclasses.replace(session, params=params), config)


def _sampled(session: "Session", config: ml_collections.ConfigDict) -> "Session":
    """The session whose own sampling is the config's, where that says anything."""
    asked = {name: value for name, value in config.get("sampling", {}).items() if value is not None}
    return dataclasses.replace(session, sampling=dataclasses.replace(session.sampling, **asked))


def _mesh(sizes: Mapping[str, int], devices: Sequence[jax.Device]) -> Mesh | None:
    """None for one device."""
    if all(size == 1 for size in sizes.values()):
        return None
    mesh = make_mesh(**sizes, devices=devices)
    return mesh if mesh.size > 1 else None


def mesh(words: Sequence[str] | None) -> Mesh | None:
    """The mesh over this process's devices that --mesh=data,fsdp,tensor describes; None for one device."""
    if words is None:
        return None
    return _mesh(dict(zip(AXES, mesh_sizes(words), strict=True)), jax.local_devices())


def mesh_sizes(words: Sequence[str]) -> tuple[int, ...]:
    """data, fsdp, tensor; one of them may be -1."""
    sizes = tuple(-1 if word.strip() == "-1" else door.whole_numbers("mesh", [word])[0] for word in words)
    if len(sizes) != len(AXES):
        raise ValueError(f"--mesh takes {','.join(AXES)}, not {len(sizes)} numbers.")
    return sizes
