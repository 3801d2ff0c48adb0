"""lm-evaluation-harness's tasks by any of our methods."""
