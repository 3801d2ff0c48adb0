"""The models: the target, the draft, their caches, and reading and writing of checkpoints."""
