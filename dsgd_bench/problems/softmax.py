"""Softmax (multinomial logistic) regression on labeled data.

Formula   f(x) = mean over samples of -log softmax(input W + b)[label] + (c/2) ||x||^2
Model     x = (W, b), one flat vector; W has shape (features, classes)
Start     x = 0
Optimum   not known in closed form; strongly convex for c > 0, so it is the only one

This is the network of `dsgd_bench.problems.mlp` without hidden layers.
"""

import numpy as np

from dsgd_bench.arrays import HOST, Array, Host
from dsgd_bench.problems.catalog import FOLDER
from dsgd_bench.problems.data import Size
from dsgd_bench.problems.mlp import MLP
from dsgd_bench.spec.ranges import Classes, Count, NotNegative


class Softmax(MLP):
    """Classification by softmax regression; see `Problem` for the methods.

    Parameters
    ----------
    data : str
        ``"digits"``, ``"generated"``, ``"mnist"``, ``"fashion-mnist"`` or
        ``"cifar-10"``; see `dsgd_bench.problems.data`.
    folder : str
        Where published data lie; see `dsgd_bench.problems.catalog`.
    file : str
        A file in LIBSVM format, instead of `data`.
    regularization : float
        The factor c of the squared norm of the model, biases included.
    samples, features, classes : int
        Size of generated data.
    recorded : bool
        Whether a GPU's kernels are recorded and started as a whole.
    seed : int
        Seed of generated data; the first model is zero for every seed.
    dtype : str
        ``"float32"`` or ``"float64"``.
    device : Host
        Where to compute.

    Raises
    ------
    ConfigError
        For settings that cannot be, and where data are missing or broken.
    """

    def __init__(  # noqa: PLR0913 (every setting is an argument)
        self,
        *,
        data: str = "digits",
        folder: str = FOLDER,
        file: str = "",
        regularization: NotNegative = 1e-4,
        samples: Count = Size.samples,
        features: Count = Size.features,
        classes: Classes = Size.classes,
        recorded: bool = True,
        seed: int = 0,
        dtype: str = "float32",
        device: Host = HOST,
    ) -> None:
        super().__init__(
            data=data,
            folder=folder,
            file=file,
            hidden=(),
            regularization=regularization,
            samples=samples,
            features=features,
            classes=classes,
            recorded=recorded,
            seed=seed,
            dtype=dtype,
            device=device,
        )

    def initial(self) -> Array:
        """Return the first model, zero, as a new array."""
        return self._device.put(np.zeros(self.dimension, self.dtype))
