"""Answers forced at the boundaries of a trace: one at a time (the reference), or many at once on a shared prefix."""
