"""What is seen of a run while it works: progress lines and metrics."""
