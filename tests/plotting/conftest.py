"""Every picture is drawn without a screen, and closed after its test."""

import matplotlib
import pytest

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def pictures():
    """pyplot; all figures are laid out and drawn once, without filling pixels, which must not warn, and closed."""
    from matplotlib import pyplot

    yield pyplot
    for number in pyplot.get_fignums():
        pyplot.figure(number).draw_without_rendering()
    pyplot.close("all")


@pytest.fixture
def title():
    """The title of axes, which stands at the left."""
    return lambda axes: axes.get_title(loc="left")
