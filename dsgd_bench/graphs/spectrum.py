"""The second largest eigenvalue of averaging, without the whole matrix.

Where every rank stands at a corner of a closed grid and sends equally far, as on a
ring, a torus or a hypercube, the eigenvectors are waves, and a Fourier transform of
what rank 0 sends gives all eigenvalues. Elsewhere W. E. Arnoldi's iteration (Quart.
Appl. Math. 9, 1951) finds the largest from products with the matrix alone.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

ROUNDING = 1e-12
"""What products of a cycle's matrices may lack of an exact average."""

STEPS = (30, 60, 120, 180, 240, 300)
"""Products after which the iteration looks whether it has arrived."""

CLOSE = 1e-6
"""How near an eigenvalue must be to count as found."""


def of_waves(sent: Sequence[Mapping[int, float]], grid: tuple[int, ...]) -> float:
    """Return the second largest modulus per step of a cycle on a grid.

    Parameters
    ----------
    sent : sequence of mappings
        For every step of the cycle, which share rank 0 gives to whom, and keeps.
    grid : tuple of int
        Sizes of the grid; rank 0 stands at its corner.
    """
    waves = np.ones(grid, complex)
    for shares in sent:
        column = np.zeros(grid)
        column.flat[list(shares)] = list(shares.values())
        waves = waves * np.fft.fftn(column)
    if np.ptp(np.fft.ifftn(waves).real) < ROUNDING:
        return 0.0  # the root below would make much of a rounding error
    moduli = np.sort(np.abs(waves), axis=None)
    return float(moduli[-2] ** (1 / len(sent)))


def by_iteration(
    entries: tuple[NDArray[np.intp], NDArray[np.intp], Vector],
    size: int,
    *,
    symmetric: bool,
) -> float | None:
    """Return the second largest modulus of a column-stochastic matrix, if it is found.

    A column-stochastic matrix maps vectors of sum 0 to such ones, and its eigenvalue 1
    has no part in them. None means that too many eigenvalues are almost as large.

    Parameters
    ----------
    entries : arrays of shape (entries,)
        Rows, columns and values of what is not 0 in the matrix.
    size : int
        Its rows.
    symmetric : bool
        Whether it is symmetric, too.
    """
    rows, columns, values = entries
    eigen = np.linalg.eigh if symmetric else np.linalg.eig
    basis = np.empty((STEPS[-1] + 1, size))
    small = np.zeros((STEPS[-1] + 1, STEPS[-1]))
    start = np.random.Generator(np.random.Philox(key=0)).standard_normal(size)
    start -= start.mean()
    basis[0] = start / np.linalg.norm(start)
    for k in range(STEPS[-1]):
        sums = np.bincount(rows, values * basis[k, columns], minlength=size)
        new: Vector = sums - sums.mean()
        for _ in range(2):  # once leaves what rounding lets through
            parts = basis[: k + 1] @ new
            new -= parts @ basis[: k + 1]
            small[: k + 1, k] += parts
        small[k + 1, k] = norm = float(np.linalg.norm(new))
        ended = norm < ROUNDING
        if ended or k + 1 in STEPS:
            found, vectors = eigen(small[: k + 1, : k + 1])
            largest = int(np.argmax(np.abs(found)))
            if ended or norm * abs(vectors[-1, largest]) < CLOSE:
                return float(np.abs(found[largest]))
        basis[k + 1] = new / norm
    return None


def of_matrix(matrix: Matrix, *, symmetric: bool) -> float:
    """Return the second largest modulus of a whole matrix."""
    found = np.linalg.eigvalsh(matrix) if symmetric else np.linalg.eigvals(matrix)
    return float(np.sort(np.abs(found))[-2])
