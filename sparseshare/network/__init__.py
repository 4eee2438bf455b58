"""Deep networks whose activations are thresholded and whose weights are shared."""

__all__ = []
