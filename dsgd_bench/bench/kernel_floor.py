"""Every operation of `dsgd_bench.arrays` against the floor of the hardware.

The floor of what moves data is its bytes over the bandwidth of a copy of as many bytes
as the model has, measured in turns with it; the floor of a product is its operations
over the rate of a large square product.
"""

import tracemalloc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dsgd_bench import arrays, rng
from dsgd_bench.analysis.statistics import estimate, median, ratio_of_medians
from dsgd_bench.arrays import Host
from dsgd_bench.bench.flags import MIB, Parser, short
from dsgd_bench.bench.kernel_cases import (
    Case,
    Form,
    copy_case,
    product_cases,
    vector_cases,
)
from dsgd_bench.bench.output import (
    Row,
    command,
    fom,
    header,
    spread,
    table,
    write_json,
)
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.ledger import monotonic
from dsgd_bench.host import provenance
from dsgd_bench.io import printing

SHARE_AIM = 0.85
"""Share of the copy's bandwidth that an update shall have on a GPU."""

SAMPLE_SECONDS = 2e-3
"""A sample calls a form as often as fills this time: waiting for a GPU costs 10 us."""

SIDES = {"cpu": 1024, "cuda": 4096}
"""Rows and columns of the square product."""


@dataclass(frozen=True)
class KernelOptions:
    """What ``dsgd-bench bench kernels`` was asked.

    Attributes
    ----------
    sizes : tuple of int
        Bytes of the models.
    device, precision : str
        See `dsgd_bench.arrays.device`.
    dtype : str
        ``"float32"`` or ``"float64"``.
    json : Path or None
        File for all numbers, with provenance.
    iterations, warm_up, percentiles, full, words, ranks
        As in `AverageOptions`; one rank.
    """

    sizes: tuple[int, ...] = (4 * MIB, 100 * MIB)
    iterations: int = 20
    warm_up: int = 2
    device: str = "cpu"
    precision: str = "float32"
    dtype: str = "float32"
    json: Path | None = None
    percentiles: tuple[float, ...] = ()
    full: bool = False
    words: tuple[str, ...] = ()
    ranks: int = 1

    @classmethod
    def from_argv(cls, words: Sequence[str]) -> Self:
        """Read the words of a command line; wrong ones end the program, as usual."""
        parser = Parser("kernels", iterations=cls.iterations, warm_up=cls.warm_up)
        add = parser.add_argument
        parser.add_sizes(cls.sizes)
        add("--device", choices=("cpu", "cuda"), default=cls.device)
        add(
            "--precision",
            choices=("float32", "tf32", "bfloat16"),
            default=cls.precision,
            help="of products on a GPU",
        )
        add("--dtype", choices=("float32", "float64"), default=cls.dtype)
        parser.add_json()
        return cls(**vars(parser.parse_args(words)), words=tuple(words))


@dataclass(frozen=True)
class Found:
    """What was measured of one case; seconds, one per iteration, bytes.

    Attributes
    ----------
    case : Case
        What was timed.
    size : str
        Of the model, for people; empty for products.
    fused, naive, floor : list of float
        Seconds of both forms, and of what they are compared with.
    floor_amount : int
        Bytes that the floor moves, or its operations.
    memory, naive_memory : int
        Bytes that one call of either form allocates.
    """

    case: Case
    size: str
    fused: list[float]
    naive: list[float]
    floor: list[float]
    floor_amount: int
    memory: int
    naive_memory: int

    @property
    def amount(self) -> int:
        """Return the operations, or else the bytes, that bound the time."""
        return self.case.operations or self.case.nbytes

    @property
    def share(self) -> float:
        """Return how near to the floor the fused form is; 1 is at it."""
        bound = median(self.floor) * self.amount / self.floor_amount
        return bound / median(self.fused)


def kernels(fabric: Fabric, options: KernelOptions) -> None:
    """Time all operations on one device; rank 0 prints. Collective."""
    facts = {
        "Sizes": ", ".join(map(short, options.sizes)) + f", {options.dtype}",
        "Iterations": f"{options.iterations}, warm-up {options.warm_up}, of "
        f"{1e3 * SAMPLE_SECONDS:g} ms or one call",
        "Floor": "bytes over the bandwidth of a copy of the model; operations over the "
        "rate of the square product",
        "Aim": f"update at {SHARE_AIM:.0%} of the copy's bandwidth on a GPU",
    }
    device = arrays.device(options.device, precision=options.precision)
    about = _about(device)
    lines = header(fabric, "kernels: operations on one device", about | facts)
    if fabric.rank == 0:
        found = list(measure(device, options))
        printing.lines([*lines, *report(found, options)])
        if options.json:
            _write(options.json, found, about, options)


def _about(device: Host) -> dict[str, str]:
    if device.kind == "cpu":
        return {"CPU": provenance.host().cpu}
    from dsgd_bench.arrays import cuda

    cuda.compile_all()
    return {**cuda.describe(), "Products": device.precision}


def measure(device: Host, options: KernelOptions) -> Iterable[Found]:
    """Yield what is found of every case, one after the other."""
    for nbytes in options.sizes:
        floor = copy_case(device, nbytes, options.dtype)
        for case in vector_cases(device, nbytes, options.dtype):
            yield _compare(device, case, floor, short(nbytes), options)
    products = product_cases(device, options.dtype, SIDES[device.kind])
    square = next(iter(products))
    yield _compare(device, square, square, "", options)
    for case in products:
        yield _compare(device, case, square, "", options)


def _compare(
    device: Host, case: Case, floor: Case, size: str, options: KernelOptions
) -> Found:
    """Time both forms of a case and its floor in turns, in random order."""
    forms = (case.fused, case.naive, floor.fused)
    calls = [_calls(device, form) for form in forms]
    memory = [temporaries(device, form) for form in forms[:2]]
    times: list[list[float]] = [[], [], []]
    order = rng.generator(0, "order")
    for _ in range(options.iterations + options.warm_up):
        for k in order.permutation(len(forms)):
            times[k].append(_sample(device, forms[k], calls[k]))
    kept = [series[options.warm_up :] for series in times]
    return Found(
        case,
        size,
        fused=kept[0],
        naive=kept[1],
        floor=kept[2],
        floor_amount=floor.operations or floor.nbytes,
        memory=memory[0],
        naive_memory=memory[1],
    )


def _sample(device: Host, form: Form, calls: int) -> float:
    """Return the seconds of one of so many calls in a row."""
    device.finish()
    started = monotonic()
    for _ in range(calls):
        form()
    device.finish()
    return (monotonic() - started) / calls


def _calls(device: Host, form: Form) -> int:
    """Return how many calls fill a sample; the first ones make what is made once."""
    _sample(device, form, 1)
    once = min(_sample(device, form, 1), _sample(device, form, 1))
    return max(1, round(SAMPLE_SECONDS / once))


def temporaries(device: Host, form: Form) -> int:
    """Return the bytes in use at once, on the device, for one call of `form`."""
    if device.kind == "cuda":
        from dsgd_bench.arrays import cuda

        with cuda.Allocations() as made:
            form()
        return int(made.peak)
    tracemalloc.start()
    form()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def report(found: Sequence[Found], options: KernelOptions) -> list[str]:
    """Return the tables, the figures of merit and the command, as lines."""
    vectors = [one for one in found if not one.case.operations]
    products = [one for one in found if one.case.operations]
    lines = []
    for some in (vectors, products):
        if some:
            lines += table([_row(one, options) for one in some])
    for one in found:
        name = "_".join([_slug(one.case.name), *([one.size] if one.size else [])])
        lines.append(fom(f"kernel_share_{name}", 100 * one.share, "%"))
    return [*lines, command("kernels", options.words)]


def _slug(name: str) -> str:
    return "_".join(name.replace(",", " ").replace("-", " ").split())


def _row(one: Found, options: KernelOptions) -> Row:
    product = bool(one.case.operations)
    time, faster = estimate(one.fused), ratio_of_medians(one.naive, one.fused)
    row = {"Product": one.case.name} if product else {"Kernel": one.case.name}
    if not product:
        row["Size"] = one.size
    if time is not None:
        row |= {
            "Time(us)": f"{1e6 * time.value:.4g}",
            "Low": f"{1e6 * time.low:.4g}",
            "High": f"{1e6 * time.high:.4g}",
        }
    rate = 1e-9 * one.amount / median(one.fused)
    row["GFLOP/s" if product else "GB/s"] = f"{rate:.4g}"
    row["Square(%)" if product else "Copy(%)"] = f"{100 * one.share:.1f}"
    row["Naive(us)"] = f"{1e6 * median(one.naive):.4g}"
    if faster is not None:
        row["Faster"] = f"{faster.value:.2f} [{faster.low:.2f}, {faster.high:.2f}]"
    row |= {"Temp(KiB)": f"{one.memory / 1024:.0f}"}
    row |= {"Naive temp(KiB)": f"{one.naive_memory / 1024:.0f}"}
    return row | spread("Time", one.fused, options.percentiles, full=options.full)


def _write(
    path: Path, found: Sequence[Found], about: dict[str, str], options: KernelOptions
) -> None:
    """Write all numbers, not only their medians."""
    rows: list[dict[str, Any]] = [
        {
            "kernel": one.case.name,
            "size": one.size,
            "bytes": one.case.nbytes,
            "operations": one.case.operations,
            "seconds": one.fused,
            "naive_seconds": one.naive,
            "floor_seconds": one.floor,
            "floor_amount": one.floor_amount,
            "share": one.share,
            "temporary_bytes": one.memory,
            "naive_temporary_bytes": one.naive_memory,
        }
        for one in found
    ]
    write_json(path, command("kernels", options.words), about, rows)
