"""Tasks of lm-evaluation-harness, decoded by any of our methods."""
