"""What a run shows while it works: progress lines and metrics."""
