"""In which order a TPU stores the axes of a kernel.

The default is the order of the axes. If a product needs another order, the compiler copies the weight: once before the
decoding loop, which doubles its memory, or in every iteration. So kernels are placed in the order in which products
read them. Their shapes and checkpoints do not change.
"""

import re

from jax.experimental.layout import Format, Layout
from jax.sharding import Sharding

_PLATFORMS = ("tpu",)
# Axes from major to minor. A product contracts D; the axes that index its results (gate or up, head, place in a group)
# come first.
_GATE_UP, _NARROW = (1, 0, 2), (1, 2, 0)
_ORDERS = (
    (r"(^|/)mlp/gate_up$", _GATE_UP),  # [D, 2, F]
    (r"(^|/)attention/qkv$", (1, 2, 0, 3)),  # [D, K, G + 2, H]
    (r"(^|/)attention/o$", (1, 0, 2, 3)),  # [K, G, H, D]
)
# A device's columns of gate and up that do not fill whole lanes (11,008 over 4 devices: 2,752) are read with D last.
_LANES = 128
_STACKED = re.compile(r"(^|/)layers/")  # of all layers, [L, ...]: one after the other


def laid_out(path: str, sharding: Sharding, shape: tuple[int, ...]) -> Sharding | Format:
    """The placement of a parameter of this (whole) shape: on a process's own TPUs with the order of its axes, elsewhere the
    sharding alone."""
    platform = next(iter(sharding.device_set)).platform
    order = next((order for pattern, order in _ORDERS if re.search(pattern, path)), None)
    if platform not in _PLATFORMS or order is None:
        return sharding
    if order == _GATE_UP and sharding.shard_shape(shape)[-1] % _LANES:
        order = _NARROW
    if _STACKED.search(path):
        order = (0, *(axis + 1 for axis in order))
    return Format(Layout(major_to_minor=order), sharding)
