"""Fixtures and settings shared by all tests."""

import numpy as np
import pytest
from hypothesis import settings

# A kernel compiles at its first call, which no per-example deadline allows for.
settings.register_profile("sparseshare", deadline=None, print_blob=True)
settings.load_profile("sparseshare")


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    """Both precisions, one after the other."""
    return request.param


@pytest.fixture
def rng():
    """The same random numbers for every test."""
    return np.random.default_rng(0)
