"""What decides: signals, smoothing, boundaries, policies, labels, calibration. No model and no loop, only arrays."""
