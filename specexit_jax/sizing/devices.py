"""Known accelerators: memory, bandwidth and arithmetic of one device, and what XLA must know of a GPU to compile for it.

From NVIDIA's data sheets and CUDA's tables of compute capabilities (A100 80GB SXM, H100 SXM, H200 SXM), and from Google
Cloud's pages on TPU v4, v5e, v5p and v6e.
"""

import dataclasses

from specexit_jax.training.speed import peak_flops

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Device:
    """kind: as JAX names it. memory: bytes; bandwidth: bytes a second; gpu: None for a TPU."""

    kind: str
    memory: int
    bandwidth: float
    gpu: "Gpu | None" = None

    @property
    def peak(self) -> float:
        """Dense bfloat16 FLOP/s."""
        return peak_flops(self.kind)


@dataclasses.dataclass(frozen=True)
class Gpu:
    """What a GPU's kernels are compiled for. Shared memory in bytes, of a block by default, of a block at most, and of a core."""

    major: int
    minor: int
    cores: int
    lanes: int
    clock_ghz: float
    cache: int
    shared_block: int
    shared_most: int
    shared_core: int


_HOPPER = Gpu(9, 0, 132, 128, 1.98, 50 * 2**20, 48 * 1024, 227 * 1024, 228 * 1024)
_AMPERE = Gpu(8, 0, 108, 64, 1.41, 40 * 2**20, 48 * 1024, 163 * 1024, 164 * 1024)
DEVICES = {
    "h100": Device("NVIDIA H100 80GB HBM3", 84_942_979_072, 3.352e12, _HOPPER),
    "h200": Device("NVIDIA H200", 150_754_820_096, 4.8e12, _HOPPER),
    "a100": Device("NVIDIA A100-SXM4-80GB", 85_095_874_560, 2.039e12, _AMPERE),
    "v4": Device("TPU v4", 32 * GIB, 1.2e12),
    "v5e": Device("TPU v5e", 16 * GIB, 0.819e12),
    "v5p": Device("TPU v5p", 95 * GIB, 2.765e12),
    "v6e": Device("TPU v6e", 32 * GIB, 1.64e12),
}


def device_of(topology: str) -> Device:
    """The device of "h100:4" or "v5e:2x2". Raises ValueError on one that is not known."""
    name = topology.split(":")[0]
    if name not in DEVICES:
        raise ValueError(f"No device {name!r} is known: name one of {', '.join(DEVICES)}.")
    return DEVICES[name]


def gpu_target(device: Device) -> str:
    """The text form of XLA's GpuTargetConfig, by which programs for a GPU compile on a machine without one."""
    gpu = device.gpu
    features = "\n    feature_extension: ACCELERATED_FEATURES" if gpu.major >= 9 else ""
    return f"""gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: {gpu.shared_block}
  shared_memory_per_core: {gpu.shared_core}
  threads_per_core_limit: 2048
  core_count: {gpu.cores}
  fpus_per_core: {gpu.lanes}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {device.bandwidth:.0f}
  l2_cache_size: {gpu.cache}
  clock_rate_ghz: {gpu.clock_ghz}
  device_memory_size: {device.memory}
  shared_memory_per_block_optin: {gpu.shared_most}
  cuda_compute_capability {{
    major: {gpu.major}
    minor: {gpu.minor}{features}
  }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{
  major: 9
  minor: 10
}}
runtime_version {{
  major: 12
  minor: 8
  patch: 0
}}
device_description_str: "{device.kind}"
"""
