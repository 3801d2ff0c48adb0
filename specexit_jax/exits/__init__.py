"""Exit decisions: signals, smoothers, boundaries, policies, labels, calibration and certificates."""
