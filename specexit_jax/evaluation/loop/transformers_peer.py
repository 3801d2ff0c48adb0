"""transformers' own `generate` on our weights: static cache, compiled if torch.compile succeeds. Only this module needs
torch."""

import importlib.util
import logging
import tempfile
import time

import numpy as np

from specexit_jax.models.checkpoints.hf import save_target
from specexit_jax.models.config import TargetConfig


def installed() -> bool:
    """Whether torch is installed, so that transformers can generate."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))


class TransformersPeer:
    """The target, its weights written to a folder and loaded by transformers, on the GPU where torch has one.

    compiled: whether torch.compile took it; else `reason` says why not. threads: of torch on a CPU.
    """

    def __init__(self, config: TargetConfig, params: dict, threads: int, compiles: bool = True):
        import torch
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        logging.getLogger("torch").setLevel(logging.ERROR)
        torch.set_num_threads(threads)
        self.torch, self.transformers = torch, transformers
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        with tempfile.TemporaryDirectory() as folder:
            save_target(folder, config, params, config.dtype)
            loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, config.dtype))
        self.model = loaded.to(self.device).eval()
        self.model.generation_config.eos_token_id = None  # so that it never ends early
        self.compiled, self.reason = compiles, None if compiles else "not asked for"

    def warm_up(self, prompts: np.ndarray, new_tokens: int) -> float:
        """Seconds of the first call, compilation included; falls back to the plain model where that fails."""
        start = time.perf_counter()
        try:
            self.generate(prompts, new_tokens)
        except Exception as error:  # torch.compile fails in types of its own, all of them mended by not compiling
            self.compiled, self.reason = False, (str(error) or type(error).__name__).strip().splitlines()[0]
            self.generate(prompts, new_tokens)
        return time.perf_counter() - start

    def generate(self, prompts: np.ndarray, new_tokens: int, compiled: bool = True) -> tuple[np.ndarray, float]:
        """Greedy ids [B, new_tokens] after `prompts` [B, P], and the seconds of a token, the prompt's pass left out.

        compiled: as far as `self.compiled`; every shape compiles anew, so a call for its ids alone had better not.
        """
        torch, moments = self.torch, []

        def look(ids, scores, **_):
            if not moments:  # the prompt is read and the first token chosen
                self._wait()
                moments.append(time.perf_counter())
            return torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)

        chosen = {"disable_compile": True}
        if compiled and self.compiled:
            chosen = {"compile_config": self.transformers.CompileConfig()}
            chosen["compile_config"]._compile_all_devices = True
        ids = torch.as_tensor(np.asarray(prompts, np.int64), device=self.device)
        with torch.no_grad():
            found = self.model.generate(
                ids,
                attention_mask=torch.ones_like(
                    ids
                ),  # without a mask, transformers would mask tokens that equal the padding
                do_sample=False,
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                cache_implementation="static",
                pad_token_id=0,
                stopping_criteria=self.transformers.StoppingCriteriaList([look]),
                **chosen,
            )
        self._wait()
        seconds = (time.perf_counter() - moments[0]) / (new_tokens - 1)
        return found[:, prompts.shape[1] :].cpu().numpy(), seconds

    def _wait(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()
