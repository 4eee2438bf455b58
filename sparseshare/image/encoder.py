"""SparseImageEncoder: images in, sparse features of their patches out."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted, check_memory, validate_data

from sparseshare.coding.problem import ALGORITHMS
from sparseshare.convolution.pooling import CellGrid
from sparseshare.devices import Movable, computing_on, moved, resolve_device, to_host
from sparseshare.learning.transformer import COUNTED
from sparseshare.validation import (
    check_axes,
    check_bool,
    check_choice,
    check_input_features,
    check_number,
    is_flat,
)

from .feature_learning import LEARNERS, learn
from .images import check_images
from .patch_codes import PatchCoder, code_maps, pooled_features

ENCODINGS = ("threshold", "triangle", "lasso", *ALGORITHMS)


class SparseImageEncoder(Movable, TransformerMixin, BaseEstimator):
    """Images to pooled sparse codes of their patches, for classifiers and regressors.

    Every patch is brought to mean 0 and contrast 1, whitened, and coded by a dictionary that `fit` learns from random
    patches; the codes are pooled over the cells of a grid. What comes out wants a `StandardScaler` and a linear model.

    Parameters
    ----------
    n_components : int, default=400
        Number of atoms that "gain_shape", "kmeans" and "random" make.
    patch_shape : int or (int, int), default=6
        Height and width of patches, in pixels. Channels belong to the patch.
    stride : int or (int, int), default=1
        Pixels from patch to patch. Larger ones are faster and, as a rule, less accurate.
    image_shape : tuple of 2 or 3 ints or None, default=None
        Height, width and channels of images that come as flat rows. None: square ones of one channel, or those of
        `fit`.
    dictionary : str, array or estimator, default="gain_shape"
        - "gain_shape": vector quantisation by multiples of unit atoms, `max_iter` passes at most;
        - "kmeans": centres of k-means, scaled to unit norm unless the encoding is "triangle";
        - "random": random patches of unit norm;
        - an array of shape (n_components, n_features): atoms for whitened patches, taken as they are;
        - an estimator that learns `components_`, such as `MiniBatchDictionaryLearning` or `KSVD`: a clone of it is
          fitted to whitened patches. If that takes long, give it a `checkpoint`, and `random_state` here a number: a
          killed `fit` then draws the same patches and goes on. The others take seconds to minutes and have none.
    encoding : str, default="threshold"
        - "threshold": products with the atoms, soft-thresholded by `alpha`;
        - "lasso": lasso codes of penalty `alpha`;
        - "omp": orthogonal matching pursuit with `n_nonzero_coefs` atoms;
        - "triangle": by how much a centre is nearer than the mean centre, for "kmeans";
        - any other algorithm of `sparse_encode`.
    alpha : float, default=0.25
        Threshold or penalty, for patches of variance near 1 and atoms of norm 1.
    n_nonzero_coefs : int or None, default=None
        Atoms a patch for "omp" and other pursuits. None is a tenth of the entries of a patch, at least 1.
    split_sign : bool, default=True
        Make features of positive and negative parts apart. "triangle" has positive ones only.
    pooling : {"sum", "mean", "max"}, default="sum"
        Of the codes in a cell. Without `split_sign`, "max" is the code of largest magnitude. Sums grow with the size of
        the image: prefer "mean" for images of different sizes.
    grid : int, (int, int) or list of these, default=2
        Rows and columns of cells, or a list of such grids, a pyramid: ``[1, 2, 4]``.
    contrast_epsilon : float, "auto" or None, default="auto"
        Added to the variances of patches. "auto" is 10 for grey values of 0 to 255, and in proportion to the squared
        range otherwise: of the dtype for uint8, uint16 and bool, of the training images else. None leaves patches as
        they are, mean included.
    whitening : "zca", transformer or None, default="zca"
        A transformer with `mean_` and `whitening_`, as `ZCAWhitening`, is cloned and fitted; in a `FrozenEstimator`
        it stays as it is. None does not whiten.
    whitening_epsilon : float, default=0.1
        Of "zca".
    n_patches : int, default=100000
        Random patches that `fit` learns from; of each batch in `partial_fit`.
    max_iter : int, default=50
        Most passes over these of "gain_shape" and "kmeans".
    sparse_output : bool, default=False
        Return csr_array.
    memory : str, joblib.Memory or None, default=None
        Where to keep what is learned from patches: a search over `encoding`, `alpha`, `pooling` and the like learns
        once a fold. With it, `random_state=None` too finds what is kept.
    random_state : int, RandomState or None, default=None
        For the choice of patches and the first atoms.
    n_jobs : int or None, default=None
        Threads; None takes all. Features do not depend on it, to the last bit.
    device : str, default="auto"
        "auto" computes where the images live: NumPy's on the CPU, CuPy's on their GPU, and so are features and
        attributes. "cuda" and "cuda:N" send NumPy images to a GPU in pieces; what comes out are NumPy arrays.
    verbose : bool, default=False
        Print a line a pass.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        Atoms, for whitened patches; entries along rows of the patch, channels last.
    whitening_ : transformer or None
    contrast_epsilon_ : float or None
    loss_curve_ : list of float
        Half the mean squared error of every pass; the learner's own, if it has one; else empty.
    n_iter_ : int
        Passes over the patches, at least 1.
    learner_ : estimator
        The fitted clone, if `dictionary` is an estimator.
    n_channels_ : int
    image_shape_ : (int, int, int) or None
        Height, width, channels of the training images, if they share them.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        As in scikit-learn, if the training images were flat rows.

    Raises
    ------
    ValueError
        For NaN and infinity, images smaller than a patch, grids finer than the map of patches, numbers of channels that
        differ, integers beside floats in a list, and parameters out of range; the message names them.

    See Also
    --------
    PatchExtractor : The patches alone.

    Notes
    -----
    Work goes on in tiles of some hundred patches: memory beyond the result does not grow with the number of images, nor
    with patches times atoms. For "threshold", whitening and dictionary are one matrix, and thresholds are taken and
    pooled while their products are in the cache.

    References
    ----------
    A. Coates, A. Ng, The importance of encoding versus training with sparse coding and vector quantization, ICML 2011
    (equations 2 to 5, section 3). A. Coates, H. Lee, A. Ng, An analysis of single-layer networks in unsupervised
    feature learning, AISTATS 2011, section 3.2 (triangle).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sparseshare.image import SparseImageEncoder
    >>> digits = load_digits().images
    >>> encoder = SparseImageEncoder(n_components=20, patch_shape=4, alpha=0.5, random_state=0).fit(digits)
    >>> encoder.transform(digits[:3]).shape
    (3, 160)
    >>> encoder.get_feature_names_out()[[0, 20, 159]].tolist()
    ['atom0+_2x2_0_0', 'atom0-_2x2_0_0', 'atom19-_2x2_1_1']
    >>> encoder.encode(digits[:3]).shape
    (3, 40, 5, 5)
    """

    __metadata_request__transform = {"out": UNUSED}

    def __init__(
        self,
        n_components=400,
        *,
        patch_shape=6,
        stride=1,
        image_shape=None,
        dictionary="gain_shape",
        encoding="threshold",
        alpha=0.25,
        n_nonzero_coefs=None,
        split_sign=True,
        pooling="sum",
        grid=2,
        contrast_epsilon="auto",
        whitening="zca",
        whitening_epsilon=0.1,
        n_patches=100_000,
        max_iter=50,
        sparse_output=False,
        memory=None,
        random_state=None,
        n_jobs=None,
        device="auto",
        verbose=False,
    ):
        self.n_components = n_components
        self.patch_shape = patch_shape
        self.stride = stride
        self.image_shape = image_shape
        self.dictionary = dictionary
        self.encoding = encoding
        self.alpha = alpha
        self.n_nonzero_coefs = n_nonzero_coefs
        self.split_sign = split_sign
        self.pooling = pooling
        self.grid = grid
        self.contrast_epsilon = contrast_epsilon
        self.whitening = whitening
        self.whitening_epsilon = whitening_epsilon
        self.n_patches = n_patches
        self.max_iter = max_iter
        self.sparse_output = sparse_output
        self.memory = memory
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.device = device
        self.verbose = verbose

    def fit(self, X, y=None):
        """Learn contrast, whitening and dictionary from random patches.

        Parameters
        ----------
        X : array of shape (n, height, width[, n_channels]) or (n, n_pixels), or list of images
            Images of numbers, NumPy's or CuPy's; float32 is computed in float32, all else in float64. In a list, images
            may have different sizes; rows are flattened images, see `image_shape`. Memory maps, zarr arrays and HDF5
            data sets are read part by part; with `memory`, what is no memory map is read whole to be recognised.
        y : ignored

        Returns
        -------
        self
        """
        self._check_parameters()
        images = self._check_images(X, reset=True)
        device, cached = self._device(X), check_memory(self.memory).cache(learn, ignore=["n_jobs", "verbose"])
        with computing_on(device):
            learned = cached(
                images, **self._learning_parameters(), n_jobs=self.n_jobs, verbose=self.verbose, device=device
            )
        return self._keep(images, learned)

    def partial_fit(self, X, y=None):
        """Learn from one more batch of images.

        The first batch decides contrast and whitening, and should be like those to come; all batches add to the
        dictionary. "random" atoms are those of the first batch.

        Parameters
        ----------
        X : images as in `fit`
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If `dictionary` is an estimator without `partial_fit`.
        """
        self._check_parameters()
        going_on = hasattr(self, "components_")
        images = self._check_images(X, reset=not going_on)
        device = self._device(X, fitted=going_on)
        with computing_on(device):
            learned = learn(
                images,
                **self._learning_parameters(),
                n_jobs=self.n_jobs,
                verbose=self.verbose,
                batch=True,
                before=self._learned if going_on else None,
                device=device,
            )
        return self._keep(images, learned)

    def transform(self, X, out=None):
        """Pooled codes, a row an image.

        Parameters
        ----------
        X : images as in `fit`
        out : array of shape (n_images, n_cells * n_signs * n_components), default=None
            Where the rows of some images at a time go, so that they are never in memory together: a memory map, zarr,
            HDF5, or anything else to whose rows can be written. It gets dense rows with `sparse_output`, too.

        Returns
        -------
        ndarray or csr_array of shape (n_images, n_cells * n_signs * n_components)
            Cell by cell, positive parts before negative ones; `get_feature_names_out` has the names. float32 if the
            images are float32, else float64; of CuPy images CuPy's. With `out` that array.

        Raises
        ------
        ValueError
            For pixels that are NaN or infinite; the message names the image. Rows that have been written to `out`
            before stay there.

        Warns
        -----
        ConvergenceWarning
            If codes of the lasso have not converged.
        """
        images, grids, coder = self._prepared(X)
        cells = CellGrid(self.grid, self.pooling)
        return pooled_features(images, grids, cells, coder, self.split_sign, self.sparse_output, self.n_jobs, out)

    def encode(self, X):
        """Codes of every patch, not pooled.

        Parameters
        ----------
        X : images as in `fit`

        Returns
        -------
        ndarray of shape (n_images, n_maps, rows, columns), list of such maps, or csr_array of shape (n_patches, n_maps)
            A map an atom, with `split_sign` one for its positive and then one for its negative parts. Images of
            different sizes give a list of arrays of shape (n_maps, rows, columns). With `sparse_output` a row a patch,
            image by image and row by row.
        """
        images, grids, coder = self._prepared(X)
        maps = code_maps(images, grids, coder, self.split_sign, self.sparse_output, self.n_jobs)
        if self.sparse_output:
            return maps
        if images.same_shape is not None:
            return maps.reshape(images.n_images, *grids[0].grid_shape, -1).transpose(0, 3, 1, 2)
        ends = np.cumsum([grid.n_patches for grid in grids])
        return [
            maps[end - grid.n_patches : end].reshape(*grid.grid_shape, -1).transpose(2, 0, 1)
            for grid, end in zip(grids, ends, strict=True)
        ]

    def get_feature_names_out(self, input_features=None):
        """Names of the features: atom, sign, grid of cells, row and column of the cell in it.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Nothing else than the names that `fit` saw.

        Returns
        -------
        ndarray of str
            Such as "atom12+_2x2_0_1".
        """
        check_is_fitted(self)
        check_input_features(self, input_features)
        signs = ("+", "-") if self.split_sign and self.encoding != "triangle" else ("",)
        names = [
            f"atom{atom}{sign}_{cell}"
            for cell in CellGrid(self.grid, self.pooling).names()
            for sign in signs
            for atom in range(len(self.components_))
        ]
        return np.array(names, dtype=object)

    @property
    def filters_(self):
        """What the products with atoms are in pixels: ndarray of shape (n_components, height, width, n_channels)."""
        check_is_fitted(self)
        matrix = self.components_ if self.whitening_ is None else self.components_ @ self.whitening_.whitening_
        return matrix.reshape(len(matrix), *check_axes("patch_shape", self.patch_shape, 2), self.n_channels_)

    def _check_parameters(self):
        of = type(self).__name__
        check_number("n_components", self.n_components, 1, integer=True, of=of)
        check_choice("encoding", self.encoding, ENCODINGS, of=of)
        check_number("alpha", self.alpha, 0, of=of)
        check_number("n_nonzero_coefs", self.n_nonzero_coefs, 1, integer=True, allow_none=True, of=of)
        check_number("whitening_epsilon", self.whitening_epsilon, 0, of=of)
        check_number("n_patches", self.n_patches, 1, integer=True, of=of)
        check_number("max_iter", self.max_iter, 0, integer=True, of=of)
        check_number("n_jobs", self.n_jobs, integer=True, allow_none=True, of=of)
        for name in ("split_sign", "sparse_output", "verbose"):
            check_bool(name, getattr(self, name), of=of)
        if self.contrast_epsilon is not None and self.contrast_epsilon != "auto":
            check_number("contrast_epsilon", self.contrast_epsilon, 0, of=of)
        if isinstance(self.dictionary, str):
            check_choice("dictionary", self.dictionary, LEARNERS, of=of)
        if not hasattr(self.whitening, "fit"):
            check_choice("whitening", self.whitening, ("zca", None), of=of)
        check_axes("patch_shape", self.patch_shape, 2)
        check_axes("stride", self.stride, 2)
        CellGrid(self.grid, self.pooling)

    def _device(self, X, fitted=False):
        """Where to compute for images X."""
        arrays = X if isinstance(X, list | tuple) else [X]
        return resolve_device(self.device, *arrays, vars(self).get("components_") if fitted else None)

    def _check_images(self, X, reset):
        self._device(X, fitted=not reset)
        if reset:
            for name in ("n_features_in_", "feature_names_in_"):
                self.__dict__.pop(name, None)
        elif is_flat(X):  # before image_shape is looked at: this says what fit saw
            validate_data(self, X, reset=False, skip_check_array=True)
        images = check_images(X, self.image_shape, fitted_shape=None if reset else self.image_shape_)
        if reset:
            if is_flat(X):
                validate_data(self, X, skip_check_array=True)  # names and number of the columns
        elif images.n_channels != self.n_channels_:
            raise ValueError(
                f"X has images of {images.n_channels} channel(s), {type(self).__name__} was fitted to "
                f"{self.n_channels_}"
            )
        return images

    def _learning_parameters(self):
        names = (
            "n_components", "patch_shape", "stride", "dictionary", "contrast_epsilon", "whitening", "whitening_epsilon",
            "n_patches", "max_iter", "random_state",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def _keep(self, images, learned):
        self._learned = learned = moved(learned, images.home)
        self.components_, self.whitening_ = learned["components"], learned["whitening"]
        self.contrast_epsilon_, self.loss_curve_ = learned["epsilon"], learned["losses"]
        self.n_iter_ = max(len(self.loss_curve_), 1)
        if learned["learner"] is not None:
            self.learner_ = learned["learner"]
        self.n_channels_ = images.n_channels
        self.image_shape_ = None if images.same_shape is None else (*images.same_shape, images.n_channels)
        return self

    def _prepared(self, X):
        """Checked images, where their patches lie, and what codes them."""
        check_is_fitted(self)
        self._check_parameters()
        images = self._check_images(X, reset=False)
        grids = images.grids(self.patch_shape, self.stride)
        if grids[0].n_features != self.components_.shape[1]:
            raise ValueError(
                f"patches of {self.patch_shape} have {grids[0].n_features} entries, the atoms have "
                f"{self.components_.shape[1]}: fit again after changing patch_shape"
            )
        encoding = "lasso_lars" if self.encoding == "lasso" else self.encoding
        options = {"owner": type(self).__name__}
        if encoding in COUNTED:
            options["n_nonzero_coefs"] = self.n_nonzero_coefs
        else:
            options["alpha"] = float(self.alpha)
        dictionary = to_host(self.components_)
        if isinstance(self.dictionary, str) and self.dictionary == "kmeans" and encoding != "triangle":
            norms = np.linalg.norm(dictionary, axis=1, keepdims=True)
            dictionary = dictionary / np.where(norms > 0, norms, 1)
        device = self._device(X, fitted=True)
        with computing_on(device):
            coder = PatchCoder(
                dictionary, encoding, options, self.contrast_epsilon_, self.whitening_, images.dtype, device
            )
        return images, grids, coder

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.three_d_array = True
        return tags
