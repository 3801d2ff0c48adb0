"""The public API, handed on by `specexit_jax`: a model that is loaded once, and answers."""
