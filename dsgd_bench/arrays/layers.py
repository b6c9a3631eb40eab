"""What the layers of a network do, on the host or on a GPU, into arrays made before.

Arrays are contiguous, of shape (rows, columns) unless said; a row is a sample, or a
place in a picture. On a GPU each is one kernel, or two where a reduction is large;
sums are taken in a set order, so results repeat bit for bit.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.arrays import Array, gpu, on_gpu

if TYPE_CHECKING:
    from dsgd_bench.arrays.maps import MapKernels


def matmul(a: Array, b: Array, out: Array, precision: str = "float32") -> None:
    """Compute ``out <- a b``.

    Parameters
    ----------
    a, b : arrays of shape (m, k), (k, n)
        Contiguous, or the transposes of contiguous arrays.
    out : array of shape (m, n)
        Contiguous; neither `a` nor `b`.
    precision : str
        How a GPU multiplies float32: ``"float32"``, ``"tf32"`` or ``"bfloat16"``, sums
        in float32; see `dsgd_bench.arrays.cuda.Gpu`.
    """
    if on_gpu(out):
        from dsgd_bench.arrays import cuda

        cuda.blas().matmul(a, b, out, precision)
        return
    np.matmul(a, b, out=out)


def gather(rows: NDArray[Any], indices: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Copy ``rows[indices]`` to `out`.

    Parameters
    ----------
    rows : array of shape (samples, ...)
        Of any type; labels may be gathered too.
    indices : array of shape (batch,)
        Where `rows` lie, int64; see `dsgd_bench.arrays.load`. One that does not exist
        is taken for the nearest one that does.
    out : array of shape (batch, ...)
        Of the type of `rows`.
    """
    if on_gpu(out):
        gpu().gather(rows, indices, out)
        return
    # Any mode but "raise" lets take write to its destination without a copy.
    rows.take(indices, 0, out, "clip")


def add_bias(h: Array, b: Array) -> None:
    """Compute ``h <- h + b`` in place, `b` of shape (columns,)."""
    if on_gpu(h):
        gpu().add_bias(h, b)
        return
    h += b


def bias_relu(h: Array, b: Array) -> None:
    """Compute ``h <- max(0, h + b)`` in place, `b` of shape (columns,)."""
    if on_gpu(h):
        gpu().bias_relu(h, b)
        return
    h += b
    np.maximum(h, 0, out=h)


def bias_backward(error: Array, db: Array) -> None:
    """Compute ``db <- sum over rows of error``, `db` of shape (columns,)."""
    if on_gpu(error):
        gpu().bias_backward(error, db)
        return
    np.add.reduce(error, axis=0, out=db)


def bias_relu_backward(error: Array, h: Array, db: Array) -> None:
    """Compute ``error <- error (h > 0)`` in place, ``db <- sum over rows of error``.

    Parameters
    ----------
    error : array of shape (rows, columns)
        df/dh on entry, df/d(h before the bias) on return.
    h : array of shape (rows, columns)
        What `bias_relu` put out; used up.
    db : array of shape (columns,)
        df/db on return.
    """
    if on_gpu(error):
        gpu().bias_relu_backward(error, h, db)
        return
    # The slope of max(0, z); sign(h) takes thirty times as long.
    error *= np.greater(h, 0, out=h)
    np.add.reduce(error, axis=0, out=db)


def cross_entropy(
    scores: Array, labels: NDArray[np.int64], loss: NDArray[np.float64]
) -> None:
    """Compute the mean of -log softmax(scores)[label]; `scores` becomes its gradient.

    Parameters
    ----------
    scores : array of shape (batch, classes)
        On return ``(softmax(scores) - onehot(labels)) / batch``.
    labels : array of shape (batch,)
        Class of each row, int64.
    loss : array of shape (batch + 1,), float64, all in one memory
        On return the mean, then the loss of each row; on a GPU not before `finish`, or
        ``float(loss[0])``.
    """
    if on_gpu(scores):
        gpu().cross_entropy(scores, labels, loss)
        return
    rows = np.arange(len(labels))
    # Softmax ignores a common shift; with the largest score at 0, exp cannot overflow.
    scores -= scores.max(axis=1, keepdims=True)
    right = scores[rows, labels]
    np.exp(scores, out=scores)
    total = scores.sum(axis=1, keepdims=True)
    losses = np.log(total[:, 0]) - right
    loss[0] = np.mean(losses, dtype=np.float64)
    loss[1:] = losses
    scores /= total
    scores[rows, labels] -= 1
    scores /= len(labels)


@cache
def on_maps() -> "MapKernels":
    """Return the kernels of this process's GPU, compiled when one is first called."""
    from dsgd_bench.arrays import cuda

    kernels: Any = cuda.map_kernels()
    return kernels  # type: ignore[no-any-return]
