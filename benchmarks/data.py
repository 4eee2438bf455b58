"""Real data that no package carries: MNIST and the standard pictures of the denoising literature.

Read from the folder of `--data` or SPARSESHARE_DATA, which holds `mnist/*.gz` (the four IDX files) and `images/*.png`
(house, peppers, boat, 8-bit grey). MNIST is fetched from OpenML where the folder has none.
"""

import gzip

import numpy as np


class DataMissing(Exception):
    """The row cannot be measured here; says what is missing."""


def mnist(settings):
    """Images (60000, 28, 28) and (10000, 28, 28) of uint8 with their labels: X_train, y_train, X_test, y_test."""
    folder = settings.data and settings.data / "mnist"
    if folder and folder.is_dir():
        return tuple(
            _idx(folder / f"{part}-{kind}-ubyte.gz")
            for part in ("train", "t10k")
            for kind in ("images-idx3", "labels-idx1")
        )
    from sklearn.datasets import fetch_openml

    try:
        X, y = fetch_openml("mnist_784", version=1, return_X_y=True, as_frame=False)
    except OSError as reason:
        raise DataMissing(f"no folder mnist/ in --data, and OpenML cannot be reached: {reason}") from reason
    X, y = X.reshape(-1, 28, 28).astype(np.uint8), y.astype(np.uint8)
    return X[:60_000], y[:60_000], X[60_000:], y[60_000:]


def picture(name, settings):
    """A standard picture, uint8 of shape (height, width)."""
    from PIL import Image

    file = settings.data and settings.data / "images" / f"{name}.png"
    if not file or not file.is_file():
        raise DataMissing(f"no images/{name}.png in the folder of --data")
    return np.asarray(Image.open(file).convert("L"))


def _idx(file):
    """The array of an IDX file of unsigned bytes."""
    content = gzip.decompress(file.read_bytes())
    shape = np.frombuffer(content, ">i4", content[3], 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
