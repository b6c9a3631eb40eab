"""A small convolutional network in the manner of LeNet-5, on pictures.

Formula   two times: convolution of 5 x 5, pooling of 2 x 2, bias, ReLU; then three
          fully connected layers with ReLU between them, and f as for the problem mlp
Widths    6 and 16 maps; 120, 84 and as many values as there are classes
          (Y. LeCun et al., "Gradient-based learning applied to document recognition",
          Proc. IEEE 86(11), 1998, section II.B)
Unlike    the original: ReLU, softmax, every map of the second layer sees all maps of
          the first, and both convolutions keep the size, with zeros beyond the edge,
          so that pictures of any size will do, the digits of 8 x 8 pixels, too
Start     weights normal with variance 2 / (values that one is made of), biases 0
Optimum   unknown; the loss is not convex
"""

import itertools

from dsgd_bench.arrays import HOST, Host
from dsgd_bench.problems.catalog import FOLDER
from dsgd_bench.problems.classifier import Setup
from dsgd_bench.problems.convolutional import Convolutional
from dsgd_bench.problems.data import Size
from dsgd_bench.problems.layers import (
    Builder,
    Convolution,
    Dense,
    Flattening,
    Maps,
    Network,
    Pooling,
    Shape,
    Unit,
)
from dsgd_bench.problems.layers.pooling import Kind, check_kind
from dsgd_bench.spec.ranges import Classes, Count, NotNegative

MAPS = (6, 16)
"""Maps of the two convolutions."""

WIDTHS = (120, 84)
"""Widths of the hidden layers."""

SIZE = 5
"""Height and width of the convolutions."""


class LeNet(Convolutional):
    """Classification of pictures by a small network; see `Problem` for the methods.

    Parameters
    ----------
    data : str
        ``"digits"``, ``"generated"``, ``"mnist"``, ``"fashion-mnist"`` or
        ``"cifar-10"``; see `dsgd_bench.problems.pictures`.
    folder : str
        Where published data lie; see `dsgd_bench.problems.catalog`.
    pooling : str
        ``"max"`` or ``"average"``.
    regularization : float
        The factor c of the squared norm of the model, biases included.
    augmentation : bool
        Whether pictures are moved and mirrored at random.
    samples, classes : int
        Size of generated data, pictures of 32 x 32 pixels in three colors.
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
        pooling: Kind = "max",
        regularization: NotNegative = 1e-4,
        augmentation: bool = False,
        samples: Count = Size.samples,
        classes: Classes = Size.classes,
        recorded: bool = True,
        seed: int = 0,
        dtype: str = "float32",
        device: Host = HOST,
    ) -> None:
        check_kind(pooling)
        self._pooling = pooling
        setup = Setup(regularization, seed, dtype, device, recorded)
        size = Size(samples, classes=classes)
        super().__init__(data, folder, size, augmentation, setup)

    def build(self, builder: Builder) -> Network:
        """Build the network for one batch size."""
        inputs = builder.maps(Shape(*self._shape, pad=SIZE // 2))
        units: list[Unit] = []
        values, error = self._convolve(builder, units, inputs, None, MAPS[0])
        for channels in MAPS[1:]:
            values, error = self._convolve(builder, units, values, error, channels)
        shape = values.shape
        widths = [shape.channels * shape.pixels, *WIDTHS, self._classes]
        rows = [builder.rows(width) for width in widths]
        errors = [*(builder.rows(width) for width in widths[:-1]), rows[-1]]
        units.append(Flattening(values, error, rows[0], errors[0]))
        for k, (n, m) in enumerate(itertools.pairwise(widths)):
            dense = Dense(
                rows[k],
                rows[k + 1],
                builder.part(n * m + m),
                error=errors[k + 1],
                back=errors[k],
                relu=k < len(WIDTHS),
                precision=builder.precision,
            )
            units.append(dense)
        return Network(builder, units, inputs, rows[-1])

    def _convolve(
        self,
        builder: Builder,
        units: list[Unit],
        source: Maps,
        back: Maps | None,
        channels: int,
    ) -> tuple[Maps, Maps]:
        """Add a convolution and what follows it; return what it puts out."""
        shape = source.shape
        values = builder.maps(Shape(channels, shape.height, shape.width, shape.pad))
        pooled = Shape(channels, shape.height // 2, shape.width // 2, shape.pad)
        out, error = builder.maps(pooled), builder.maps(pooled)
        convolution = Convolution(
            source,
            values,
            builder.part(channels * SIZE**2 * shape.channels),
            builder.room,
            size=SIZE,
            back=back,
            precision=builder.precision,
        )
        pooling = Pooling(
            values,
            out,
            error,
            builder.part(channels),
            builder.room,
            kind=self._pooling,
        )
        units += [convolution, pooling]
        return out, error
