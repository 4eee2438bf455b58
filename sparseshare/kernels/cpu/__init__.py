"""Numba kernels. They trust their input, allocate once a tile and know neither options nor estimators."""
