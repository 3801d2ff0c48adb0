"""The public API, which `specexit_jax` exports: a model that is loaded once and answers prompts."""

import os

# Only tokenizers are used of transformers: its warning that PyTorch is missing does not apply.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
