"""What ``bench problems`` can be asked."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dsgd_bench.arrays.blas import PRECISIONS
from dsgd_bench.bench.cases import CASES, SAMPLES
from dsgd_bench.bench.flags import Parser, count


@dataclass(frozen=True)
class ProblemOptions:
    """What ``dsgd-bench bench problems`` was asked.

    Attributes
    ----------
    names : tuple of str
        Networks, of `CASES`.
    device : str
        ``"cpu"`` or ``"cuda"``.
    batches : tuple of int
        Batch sizes; empty for that of the network.
    dtype, precision : str
        Element type, and how a GPU multiplies float32.
    threads : int
        Threads of linear algebra, of ours and of torch.
    torch, compiled : bool
        Whether to compare with PyTorch, and with what it compiles.
    json : Path or None
        Where to write all numbers.
    iterations, warm_up, percentiles, full, words, ranks
        As in `AverageOptions`; always one rank.
    """

    names: tuple[str, ...] = tuple(CASES)
    device: str = "cpu"
    batches: tuple[int, ...] = ()
    dtype: str = "float32"
    precision: str = "float32"
    threads: int = 1
    torch: bool = True
    compiled: bool = True
    iterations: int = 20
    warm_up: int = 2
    percentiles: tuple[float, ...] = ()
    full: bool = False
    json: Path | None = None
    words: tuple[str, ...] = ()
    ranks: int = 1

    @classmethod
    def from_argv(cls, words: Sequence[str]) -> Self:
        """Read the words of a command line; wrong ones end the program, as usual."""
        parser = Parser("problems", iterations=cls.iterations, warm_up=cls.warm_up)
        add = parser.add_argument
        add("--device", choices=("cpu", "cuda"), default=cls.device)
        add(
            "--problem",
            dest="names",
            type=networks,
            metavar="NAME,...",
            default=cls.names,
            help=f"some of {', '.join(CASES)} (default: all)",
        )
        add(
            "--batch",
            dest="batches",
            type=counts,
            metavar="N,...",
            default=(),
            help="samples of a gradient (default: one size for each network)",
        )
        add("--dtype", choices=("float32", "float64"), default=cls.dtype)
        add(
            "--precision",
            choices=PRECISIONS,
            default=cls.precision,
            help="how a GPU multiplies float32",
        )
        add("--threads", type=count, metavar="N", default=cls.threads)
        add("--no-torch", dest="torch", action="store_false")
        add("--no-compile", dest="compiled", action="store_false")
        parser.add_json()
        return cls(**vars(parser.parse_args(words)), words=tuple(words))


def networks(text: str) -> tuple[str, ...]:
    """Read "mlp,resnet20" as names of `CASES`."""
    names = tuple(text.split(","))
    for name in names:
        if name not in CASES:
            raise argparse.ArgumentTypeError(
                f"{name!r} is no network here; choose from {', '.join(CASES)}"
            )
    return names


def counts(text: str) -> tuple[int, ...]:
    """Read "32,128" as batch sizes."""
    found = tuple(count(word) for word in text.split(","))
    if max(found) > SAMPLES:
        raise argparse.ArgumentTypeError(f"{text}: there are {SAMPLES} samples")
    return found
