"""The public API, handed on by `specexit_jax`: a model that is loaded once, and answers."""

import os

# Only tokenizers come from transformers: its advice to install PyTorch is noise here.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
