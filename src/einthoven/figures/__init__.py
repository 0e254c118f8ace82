"""Every plot: ECG paper, training curves, scores."""
