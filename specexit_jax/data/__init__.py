"""Data that models are trained on and evaluated with: benchmarks, own files, packed rows, graders, the reasoning
world."""
