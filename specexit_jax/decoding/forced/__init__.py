"""Answers forced at boundaries of a trace: one at a time (the oracle), or many at once on one prefix."""
