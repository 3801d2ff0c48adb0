"""Decoding: position-keyed sampling, the compiled speculative loop with exits, the slow oracle that tests it, forced answers."""
