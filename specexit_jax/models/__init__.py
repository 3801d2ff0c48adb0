"""What computes: the target, the draft, their cache, and checkpoints in and out."""
