"""Batch normalization, what is added to it, and the ReLU behind both: one layer.

Formula   out = max(0, gamma (y - mean) / sqrt(variance + eps) + beta + shortcut)
Mean      over the batch and the pixels, for each channel; variance likewise, divided by
          their number (S. Ioffe and C. Szegedy, ICML 2015, Algorithm 1)
Start     gamma = 1, beta = 0

The statistics are those of this rank's batch, computed in two passes: the variance is
the mean square of what is left when the mean is taken away. No running statistics are
kept, as they are no part of the model that ranks exchange; before a model is evaluated
they are taken from training data, at that very model (Y. Wu and J. Johnson, "Rethinking
'Batch' in BatchNorm", arXiv:2105.07576, section 3).

On the host a few channels are worked on at a time, so that they stay in the cache, and
each thread has channels of its own.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from dsgd_bench.arrays import Array, on_gpu
from dsgd_bench.arrays.layers import on_maps
from dsgd_bench.problems.layers.maps import Maps
from dsgd_bench.problems.layers.team import team

EPS = 1e-5
"""Added to the variance, as in He et al. and in PyTorch."""

BLOCK_BYTES = 1024 * 1024
"""Bytes of channels that are worked on at a time on the host. A quarter of it would fit
a smaller cache, but threads then spend more time on handing over Python's lock."""


class Shortcut:
    """The identity around two layers; of fewer pixels and more channels if need be.

    Where the shapes differ, every second pixel (or so) is taken and channels of zeros
    are added behind: option A of K. He et al., "Deep residual learning for image
    recognition", arXiv:1512.03385, section 4.2. It has no weights.

    Parameters
    ----------
    source : Maps
        Where it begins.
    back : Maps
        Receives the gradient of `source`; like it in shape.
    stride : int
        Which pixels it takes.
    """

    def __init__(self, source: Maps, back: Maps, stride: int = 1) -> None:
        self.source, self.back, self.stride = source, back, stride

    @property
    def is_identity(self) -> bool:
        """Whether it takes everything as it is."""
        return self.stride == 1

    def add(self, channels: slice, out: Maps) -> None:
        """Add some channels of the input to `out`."""
        if self.is_identity:
            out.flat[channels] += self.source.flat[channels]
            return
        taken = self.source.neighbors(0, 0, self.stride)[channels]
        out.pixels[channels.start : channels.start + len(taken)] += taken

    def put_back(self, error: Maps) -> None:
        """Write the gradient of the input; for an identity `back` is `error` itself."""
        if self.is_identity:
            return
        self.back.flat[...] = 0
        taken = self.back.neighbors(0, 0, self.stride)
        taken[...] = error.pixels[: len(taken)]


class Normalization:
    """Batch normalization, shortcut and ReLU; see `Unit` for the methods.

    Parameters
    ----------
    values : Maps
        What it reads, with anything at the edges. Used up: between `forward` and
        `backward` it holds what the way back needs, after that the gradient of what
        was read, with zeros at the edges.
    out : Maps
        What it writes, with zeros at the edges. Used up by `backward`.
    error : Maps
        The gradient of `out`, with anything at the edges; on return that of the
        shortcut.
    part : slice
        Where gamma, then beta lie in the model.
    shortcut : Shortcut, optional
        What is added before the ReLU.

    Attributes
    ----------
    mean, variance : array of shape (channels,)
        Statistics of the last batch.
    learned : bool
        Whether `forward` takes the statistics of its batch; else those that are there.
    """

    def __init__(
        self,
        values: Maps,
        out: Maps,
        error: Maps,
        part: slice,
        shortcut: Shortcut | None = None,
    ) -> None:
        self.part = part
        self._values, self._out, self._error = values, out, error
        self._shortcut = shortcut
        channels = values.shape.channels
        self._n = values.count * values.shape.pixels
        like = values.flat
        self.mean: Array = np.zeros_like(like, shape=channels)
        self.variance: Array = np.ones_like(like, shape=channels)
        self.learned = True
        self._scale: Array = np.empty_like(self.mean)
        rows = max(1, BLOCK_BYTES // (values.length * like.itemsize))
        self._shares = [
            [slice(start, min(start + rows, some[-1] + 1)) for start in some[::rows]]
            for some in team().deal(range(channels))
        ]

    def initialize(self, x: Array, random: np.random.Generator) -> None:  # noqa: ARG002
        """Set gamma to 1 and beta to 0."""
        gamma, beta = self._split(x)
        gamma.fill(1.0)
        beta.fill(0.0)

    def forward(self, x: Array) -> None:
        """Compute the output."""
        gamma, beta = self._split(x)
        if on_gpu(gamma):
            self._forward_on_gpu(gamma, beta)
            return
        team().share(partial(self._forward, gamma, beta), self._shares)

    def _forward(
        self,
        gamma: Array,
        beta: Array,
        thread: int,  # noqa: ARG002
        blocks: Sequence[slice],
    ) -> None:
        for block in blocks:
            self._center(block)
            scale = self._scale[block]
            np.add(self.variance[block], EPS, out=scale)
            np.sqrt(scale, out=scale)
            np.reciprocal(scale, out=scale)
            out = self._out.flat[block]
            factor = scale * gamma[block]
            np.multiply(self._values.flat[block], factor[:, None], out=out)
            out += beta[block, None]
            if self._shortcut is not None:
                self._shortcut.add(block, self._out)
            self._out.clear_edges(block)
            np.maximum(out, 0, out=out)

    def _forward_on_gpu(self, gamma: Array, beta: Array) -> None:
        shortcut = self._shortcut
        on_maps().normalize(
            self._values,
            self._out,
            (gamma, beta),
            (self.mean, self.variance),
            eps=EPS,
            learned=self.learned,
            shortcut=(shortcut.source, shortcut.stride) if shortcut else None,
        )

    def _center(self, block: slice) -> None:
        """Take the mean of some channels away, and leave zeros at the edges."""
        z = self._values.flat[block]
        mean, variance = self.mean[block], self.variance[block]
        if self.learned:
            self._values.clear_edges(block)
            np.add.reduce(z, axis=1, out=mean)
            mean /= self._n
        z -= mean[:, None]
        self._values.clear_edges(block)
        if self.learned:
            np.vecdot(z, z, out=variance)
            variance /= self._n

    def backward(self, x: Array, g: Array) -> None:
        """Compute the gradients of gamma, beta, shortcut and input from the output's.

        With d = df/dout (out > 0), z = y - mean, s = 1 / sqrt(variance + eps):
        dbeta = sum d; dgamma = s sum d z; df/dy = gamma s (d - mean d - s^2 z mean d z)
        """
        gamma, _ = self._split(x)
        dgamma, dbeta = self._split(g)
        if on_gpu(gamma):
            on_maps().normalize_back(
                self._values,
                self._out,
                self._error,
                (self.mean, self.variance),
                gamma,
                (dgamma, dbeta),
                eps=EPS,
            )
            self._put_back()
            return
        team().share(partial(self._backward, gamma, dgamma, dbeta), self._shares)
        self._put_back()

    def _backward(
        self,
        gamma: Array,
        dgamma: Array,
        dbeta: Array,
        thread: int,  # noqa: ARG002
        blocks: Sequence[slice],
    ) -> None:
        for block in blocks:
            z, out = self._values.flat[block], self._out.flat[block]
            d, s = self._error.flat[block], self._scale[block]
            np.greater(out, 0, out=out)  # at the edges never
            d *= out
            np.add.reduce(d, axis=1, out=dbeta[block])
            np.vecdot(d, z, out=dgamma[block])
            z *= (dgamma[block] * s * s / -self._n)[:, None]
            z += d
            z -= (dbeta[block] / self._n)[:, None]
            z *= (gamma[block] * s)[:, None]
            self._values.clear_edges(block)
            dgamma[block] *= s

    def _put_back(self) -> None:
        if self._shortcut is not None:
            self._shortcut.put_back(self._error)

    def _split(self, x: Array) -> tuple[Array, Array]:
        """Return gamma and beta, or what belongs to them, as views."""
        both = x[self.part].reshape(2, -1)
        return both[0], both[1]
