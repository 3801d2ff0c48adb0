"""The sizes of common models, without their weights: for compiling and timing at real shapes."""

from specexit_jax.models.config import PAPER_SIGNALS, DraftConfig, RopeScaling, TargetConfig
from specexit_jax.models.draft import KINDS, make_config

DRAFT_VOCABULARY = 32_000  # of a head of its own, at most
_LLAMA3 = RopeScaling(8.0, 1.0, 4.0, 8192)
TARGETS = {
    "tiny": TargetConfig("llama", 512, 64, 128, 8, 4, 2, 16),
    "bundled": TargetConfig("qwen3", 1536, 96, 256, 16, 3, 1, 32, qk_norm=True, tie_embeddings=True, max_position=1024),
    "smollm2-135m": TargetConfig(
        "llama", 49152, 576, 1536, 30, 9, 3, 64, 1e-5, 100_000.0, tie_embeddings=True, max_position=8192
    ),
    "qwen-1.5b": TargetConfig("qwen2", 151936, 1536, 8960, 28, 12, 2, 128, qkv_bias=True, max_position=131072),
    "qwen-7b": TargetConfig("qwen2", 152064, 3584, 18944, 28, 28, 4, 128, qkv_bias=True, max_position=131072),
    "qwen3-4b": TargetConfig(
        "qwen3", 151936, 2560, 9728, 36, 32, 8, 128, 1e-6, 5e6, qk_norm=True, tie_embeddings=True, max_position=262144
    ),
    "qwen3-8b": TargetConfig("qwen3", 151936, 4096, 12288, 36, 32, 8, 128, 1e-6, 1e6, qk_norm=True, max_position=40960),
    "mimo-7b": TargetConfig(
        "mimo", 151680, 4096, 11008, 36, 32, 8, 128, 1e-5, 640_000.0, qkv_bias=True, max_position=32768
    ),
    "llama-8b": TargetConfig("llama", 128256, 4096, 14336, 32, 32, 8, 128, 1e-5, 5e5, _LLAMA3, max_position=131072),
}

PUBLISHED = {  # of these names on the hub
    "Qwen/Qwen3-4B-Thinking-2507": "qwen3-4b",
    "Qwen/Qwen3-8B": "qwen3-8b",
    "XiaomiMiMo/MiMo-7B-RL": "mimo-7b",
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": "llama-8b",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": "qwen-1.5b",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": "qwen-7b",
}


def draft_for(target: TargetConfig, kind: str = "eagle3", family: str = "mimo") -> DraftConfig:
    """A draft of this kind and of the target's own sizes, like the published ones. family: of a kind that has some."""
    sizes = target.intermediate_size, min(DRAFT_VOCABULARY, target.vocab_size)
    return make_config(kind, target, family, *sizes, KINDS[kind].signals, 0, PAPER_SIGNALS)
