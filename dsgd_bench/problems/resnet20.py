"""ResNet-20 for pictures of 32 x 32 pixels: the papers' network, 0.27 million weights.

Formula   convolution of 3 x 3 with batch normalization and ReLU; then three times three
          blocks of two such layers around a shortcut, with 16, 32 and 64 maps of 32,
          16 and 8 pixels squared; the mean of every map; one fully connected layer; f
          as for the problem mlp
Shortcut  the identity; between the stages every second pixel, and zeros for the maps
          that are new (option A)
Source    K. He et al., "Deep residual learning for image recognition",
          arXiv:1512.03385, section 4.2, n = 3
Start     weights normal with variance 2 / (values that one is made of), gamma = 1,
          beta = 0, bias = 0 (K. He et al., "Delving deep into rectifiers", ICCV 2015)
Optimum   unknown; the loss is not convex

Batch normalization makes the loss of a sample depend on its batch. Statistics are those
of this rank's batch; models are evaluated with statistics taken from training data.
"""

from dataclasses import replace

from dsgd_bench.arrays import HOST, Host
from dsgd_bench.problems.catalog import FOLDER
from dsgd_bench.problems.classifier import Setup
from dsgd_bench.problems.convolutional import Convolutional
from dsgd_bench.problems.data import Size
from dsgd_bench.problems.layers import (
    Builder,
    Convolution,
    Dense,
    GlobalAverage,
    Maps,
    Network,
    Normalization,
    Shape,
    Shortcut,
    StridedConvolution,
    Unit,
)
from dsgd_bench.spec.ranges import Classes, Count, NotNegative

STAGES = (16, 32, 64)
"""Maps of the three stages."""

BLOCKS = 3
"""Blocks of a stage."""


class ResNet20(Convolutional):
    """Classification of pictures by a residual network; see `Problem` for the methods.

    Parameters
    ----------
    data : str
        ``"generated"`` or ``"cifar-10"``, or others of `dsgd_bench.problems.pictures`.
    folder : str
        Where published data lie; see `dsgd_bench.problems.catalog`.
    regularization : float
        The factor c of the squared norm of the model, all of it.
    augmentation : bool
        Whether pictures are moved by up to 4 pixels and mirrored at random.
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
        data: str = "generated",
        folder: str = FOLDER,
        regularization: NotNegative = 1e-4,
        augmentation: bool = False,
        samples: Count = Size.samples,
        classes: Classes = Size.classes,
        recorded: bool = True,
        seed: int = 0,
        dtype: str = "float32",
        device: Host = HOST,
    ) -> None:
        setup = Setup(regularization, seed, dtype, device, recorded)
        size = Size(samples, classes=classes)
        super().__init__(data, folder, size, augmentation, setup)

    def build(self, builder: Builder) -> Network:
        """Build the network for one batch size."""
        inputs = builder.maps(Shape(*self._shape))
        first = Shape(STAGES[0], *self._shape[1:])
        stage = _Stage(builder, first)
        out = stage.layer(inputs, back=None, error=stage.outer)
        for channels in STAGES:
            for number in range(BLOCKS):
                if number == 0 and channels != STAGES[0]:
                    stage = stage.next(channels)
                    out = stage.block(out, 2)
                else:
                    out = stage.block(out, 1)
        rows, row_errors = builder.rows(channels), builder.rows(channels)
        scores = builder.rows(self._classes)
        units = stage.units
        units.append(GlobalAverage(out, stage.outer, rows, row_errors))
        dense = Dense(
            rows,
            scores,
            builder.part((channels + 1) * self._classes),
            error=scores,
            back=row_errors,
            precision=builder.precision,
        )
        units.append(dense)
        return Network(builder, units, inputs, scores)


class _Stage:
    """Builds the layers that work on maps of one shape.

    Attributes
    ----------
    outer, inner : Maps
        The gradient of what blocks put out, and of what is inside; used by all blocks
        in turn.
    """

    def __init__(
        self, builder: Builder, shape: Shape, before: "_Stage | None" = None
    ) -> None:
        self._builder, self._shape, self._before = builder, shape, before
        self.units: list[Unit] = before.units if before else []
        self.outer, self.inner = builder.maps(shape), builder.maps(shape)

    def next(self, channels: int) -> "_Stage":
        """Return the stage with more maps of half the size."""
        shape = self._shape
        height, width = -(-shape.height // 2), -(-shape.width // 2)
        halved = replace(shape, channels=channels, height=height, width=width)
        return _Stage(self._builder, halved, self)

    def block(self, source: Maps, stride: int) -> Maps:
        """Add two layers around a shortcut; return what they put out."""
        back = self.outer
        if stride > 1 and self._before:
            back = self._before.outer
        inside = self.layer(source, back=back, error=self.inner, stride=stride)
        shortcut = Shortcut(source, back, stride)
        return self.layer(
            inside, back=self.inner, error=self.outer, shortcut=shortcut, adds=False
        )

    def layer(
        self,
        source: Maps,
        *,
        back: Maps | None,
        error: Maps,
        stride: int = 1,
        shortcut: Shortcut | None = None,
        adds: bool = True,
    ) -> Maps:
        """Add convolution, normalization and ReLU; return what they put out."""
        builder, channels = self._builder, self._shape.channels
        values, out = builder.maps(self._shape), builder.maps(self._shape)
        part = builder.part(channels * 9 * source.shape.channels)
        convolution: Unit
        if stride > 1:
            convolution = StridedConvolution(
                source,
                values,
                part,
                builder.room,
                stride=stride,
                back=back,
            )
        else:
            convolution = Convolution(
                source,
                values,
                part,
                builder.room,
                back=back,
                adds=adds,
                precision=builder.precision,
            )
        scale = builder.part(2 * channels)
        normalization = Normalization(values, out, error, scale, shortcut)
        self.units += [convolution, normalization]
        return out
