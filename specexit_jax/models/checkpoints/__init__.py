"""Checkpoints of Hugging Face, EAGLE-3, AngelSlim and speculators, in and out."""
