"""Timing of the decoding loop: an iteration, its parts, its lower bound, and other ways to decode."""
