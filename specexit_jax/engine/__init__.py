"""From requests to outcomes: sessions, methods, batches, slots, streams and conversations (`generate.py` has the way)."""
