"""How long models on GPUs take to reach another rank, every way that works."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dsgd_bench import arrays, rng
from dsgd_bench.analysis.statistics import median
from dsgd_bench.arrays import Array
from dsgd_bench.bench.averaging import alone, both
from dsgd_bench.bench.flags import MIB, Parser, short
from dsgd_bench.bench.output import (
    Row,
    command,
    fom,
    header,
    spread,
    table,
    write_json,
)
from dsgd_bench.errors import ConfigError
from dsgd_bench.exchanges.neighbors import Exchange
from dsgd_bench.exchanges.replicas import Replicas
from dsgd_bench.io import printing

if TYPE_CHECKING:
    from dsgd_bench.fabric.mpi.fabric import MpiFabric

HOST = "host"
WAYS = ("staged", "gpu-aware", "ipc")


@dataclass(frozen=True)
class TransportOptions:
    """What ``dsgd-bench bench transports`` was asked.

    Attributes
    ----------
    sizes : tuple of int
        Bytes of the models.
    iterations, warm_up : int
        Samples that count, and that come before.
    percentiles : tuple of float
        Printed beside the median.
    full : bool
        Whether minimum, maximum and number of samples are printed.
    device : str
        ``"cuda"``, or ``"cpu"`` for the host alone.
    json : Path or None
        Where to write all numbers.
    words : tuple of str
        The words it was made of.
    ranks : int
        Always 2.
    """

    sizes: tuple[int, ...] = (4 * MIB, 100 * MIB)
    iterations: int = 40
    warm_up: int = 4
    percentiles: tuple[float, ...] = ()
    full: bool = False
    device: str = "cuda"
    json: Path | None = None
    words: tuple[str, ...] = ()
    ranks: int = 2

    @classmethod
    def from_argv(cls, words: Sequence[str]) -> Self:
        """Read the words of a command line; wrong ones end the program, as usual."""
        parser = Parser("transports", iterations=cls.iterations, warm_up=cls.warm_up)
        parser.add_sizes(cls.sizes)
        parser.add_argument(
            "--device",
            choices=("cuda", "cpu"),
            default=cls.device,
            help="where models lie; cpu shows the host's times alone",
        )
        parser.add_json()
        return cls(**vars(parser.parse_args(words)), words=tuple(words))


@dataclass(frozen=True)
class Found:
    """Seconds of one operation, one size and one way; one per iteration."""

    operation: str
    nbytes: int
    way: str
    seconds: list[float]


def transports(fabric: "MpiFabric", options: TransportOptions) -> None:
    """Time averaging, exchanging and summing models every way; rank 0 prints.

    Raises
    ------
    ConfigError
        Unless there are two ranks, and a GPU if models shall lie on one.
    """
    if fabric.size != 2:
        raise ConfigError(
            f"the benchmark 'transports' runs on 2 ranks, not {fabric.size}: start it "
            "as `dsgd-bench bench transports`"
        )
    fabrics: dict[str, Any] = {HOST: fabric}
    facts = {
        "MPI library": fabric.describe()["mpi_library"],
        "Sizes": ", ".join(map(short, options.sizes)) + ", float32",
        "Iterations": f"{options.iterations}, warm-up {options.warm_up}",
        "average": "AD-PSGD's: both models become their mean, by rank 0, rank 1 idles",
        "exchange": "a model each way, as SGP and D-PSGD send them; the slower rank",
        "all-reduce": "of a gradient, in place; the slower rank",
    }
    if options.device == "cuda":
        fabrics |= _on_gpus(fabric, facts)
    found = [
        one
        for nbytes in options.sizes
        for way, carrier in fabrics.items()
        for one in _measure(carrier, nbytes, way, options)
    ]
    lines = header(fabric, "transports: from GPU to GPU", facts)
    if fabric.rank == 0:
        printing.lines([*lines, *report(found, options)])
        if options.json:
            rows = [asdict(one) for one in found]
            write_json(options.json, command("transports", options.words), facts, rows)


def _on_gpus(fabric: "MpiFabric", facts: dict[str, str]) -> dict[str, Any]:
    """Return a fabric for every way that works; the others' reasons go into `facts`."""
    gpu = arrays.device("cuda", fabric.rank)
    gpu.divide(fabric.gather(gpu.place).count(gpu.place), 1.0)
    from dsgd_bench.fabric.gpu.fabric import on_gpus

    about = gpu.describe()
    facts["GPU"] = (
        f"{about['name']}, {about['ranks']} ranks on it, MPS {about['mps']}, CuPy "
        f"{about['cupy']}, driver for CUDA {about['driver'] // 1000}"
    )
    fabrics: dict[str, Any] = {}
    for way in WAYS:
        try:
            fabrics[way] = on_gpus(fabric, gpu, way)  # type: ignore[arg-type]
        except ConfigError as error:
            facts[way] = str(error)
    return fabrics


def _measure(
    fabric: Any, nbytes: int, way: str, options: TransportOptions
) -> list[Found]:
    """Time the operations that this way is for; collective."""
    values = rng.generator(0, "bench", fabric.rank).random(nbytes // 4, np.float32)
    x = getattr(fabric, "gpu", arrays.HOST).put(values)
    arrays.finish(x)
    found = []
    for operation, run, interleaved in _operations(fabric, x, way):
        times = interleaved(fabric, (run,), options.iterations, options.warm_up)[0]
        found.append(Found(operation, nbytes, way, times))
    return found


def _operations(fabric: Any, x: Array, way: str) -> Any:
    """Yield name, call and kind of timing of each operation; one lives at a time."""
    if way != "gpu-aware":
        with Replicas(fabric, x, lambda _x, _g: None) as replicas:
            yield "average", partial(replicas.average_with, 1 - fabric.rank), alone
    if way != "ipc":
        out, into, other = x.copy(), np.empty_like(x), 1 - fabric.rank
        with Exchange(fabric) as exchange:
            run: Callable[[], None] = partial(
                exchange.run, [(out, other)], [(into, other)]
            )
            yield "exchange", run, both
        yield "all-reduce", partial(fabric.average, x), both


def report(found: Sequence[Found], options: TransportOptions) -> list[str]:
    """Return the table, the figures of merit and the command, as lines."""
    rows: list[Row] = []
    lines = []
    for one in sorted(found, key=lambda f: (f.operation, f.nbytes)):
        seconds = median(one.seconds)
        rows.append(
            {
                "Operation": one.operation,
                "Size": str(one.nbytes),
                "Models": one.way,
                "Median(ms)": f"{1e3 * seconds:.4g}",
                "GB/s": f"{one.nbytes / seconds / 1e9:.3g}",
                **spread("Time", one.seconds, options.percentiles, full=options.full),
            }
        )
        name = f"{one.operation}_{one.way}_{short(one.nbytes)}".replace("-", "_")
        lines.append(fom(f"transport_{name}", 1e3 * seconds, "ms"))
    return [*table(rows), *lines, command("transports", options.words)]
