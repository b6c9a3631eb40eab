"""A network of fully connected layers on labeled data.

Formula   h_0 = input;  h_k = max(0, h_{k-1} W_k + b_k);  scores = h_{L-1} W_L + b_L
          f(x) = mean over samples of -log softmax(scores)[label] + (c / 2) ||x||^2
Model     x = (W_1, b_1, ..., W_L, b_L), one flat vector; W_k has shape (in, out)
Start     W_k normal with variance 2 / in, b_k = 0 (K. He et al., "Delving deep into
          rectifiers", ICCV 2015, section 2.2)
Optimum   unknown; the loss is not convex
"""

from dsgd_bench.arrays import HOST, Host
from dsgd_bench.problems.base import at_least, dtype_of
from dsgd_bench.problems.catalog import FOLDER
from dsgd_bench.problems.classifier import CHUNK, Classifier, Setup
from dsgd_bench.problems.data import Size, load
from dsgd_bench.problems.layers import Builder, Dense, Network
from dsgd_bench.spec.ranges import Classes, Count, NotNegative, Widths

__all__ = ["CHUNK", "MLP"]


class MLP(Classifier):
    """Classification by a multilayer perceptron; see `Problem` for the methods.

    Parameters
    ----------
    data : str
        ``"digits"``, ``"generated"``, ``"mnist"``, ``"fashion-mnist"`` or
        ``"cifar-10"``; see `dsgd_bench.problems.data`.
    folder : str
        Where published data lie; see `dsgd_bench.problems.catalog`.
    file : str
        A file in LIBSVM format, instead of `data`.
    hidden : tuple of int
        Widths of the hidden layers, first to last; empty for none.
    regularization : float
        The factor c of the squared norm of the model, biases included.
    samples, features, classes : int
        Size of generated data.
    recorded : bool
        Whether a GPU's kernels are recorded and started as a whole.
    seed : int
        Seed of the first model and of generated data.
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
        hidden: Widths = (64,),
        regularization: NotNegative = 1e-4,
        samples: Count = Size.samples,
        features: Count = Size.features,
        classes: Classes = Size.classes,
        recorded: bool = True,
        seed: int = 0,
        dtype: str = "float32",
        device: Host = HOST,
    ) -> None:
        for width in hidden:
            at_least(1, hidden=width)
        setup = Setup(regularization, seed, dtype, device, recorded)
        size = Size(samples, features, classes)
        found = load(
            data, size, seed=seed, dtype=dtype_of(dtype), folder=folder, file=file
        )
        self._widths = [found.inputs.shape[1], *hidden, found.classes]
        super().__init__(found, setup)

    def build(self, builder: Builder) -> Network:
        """Build the network for one batch size."""
        values = [builder.rows(width) for width in self._widths]
        last = len(values) - 1
        errors = {k: builder.rows(self._widths[k]) for k in range(1, last)}
        errors[last] = values[last]  # the gradient of the scores takes their place
        layers = []
        for k, (n, m) in enumerate(
            zip(self._widths[:-1], self._widths[1:], strict=True)
        ):
            dense = Dense(
                values[k],
                values[k + 1],
                builder.part(n * m + m),
                error=errors[k + 1],
                back=errors.get(k),  # that of the inputs is never used
                relu=k + 2 < len(self._widths),
                precision=builder.precision,
            )
            layers.append(dense)
        return Network(builder, [*layers], values[0], values[-1])
