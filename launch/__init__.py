"""Thin entry points, one a stage: python -m launch.NAME."""

import os

# Only tokenizers come from transformers: its advice to install PyTorch is noise here.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
