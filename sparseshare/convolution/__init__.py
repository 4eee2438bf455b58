"""Sparse coding with atoms shared over all positions of a signal, an image or a volume."""

__all__ = []
