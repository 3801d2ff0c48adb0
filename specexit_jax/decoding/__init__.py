"""What runs: position-keyed sampling, the speculative loop with exits, its slow oracle, forced answers."""
