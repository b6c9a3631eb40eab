"""How fast gradients are: against the floor, and against the same network in PyTorch.

First every form computes the gradient of the same model on the same batch, and how far
the others are from ours is said in the table. Then they take turns, in stretches of at
least `SLICE` seconds, each stretch with the same batches.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dsgd_bench import arrays, rng
from dsgd_bench.analysis.statistics import median, ratio_of_medians
from dsgd_bench.arrays import Array, Host
from dsgd_bench.bench.cases import CASES, SAMPLES, Case
from dsgd_bench.bench.floors import Floor, copy_bandwidth, matmul_rate
from dsgd_bench.bench.gradient_options import ProblemOptions
from dsgd_bench.bench.output import (
    Row,
    command,
    fom,
    header,
    spread,
    table,
    write_json,
)
from dsgd_bench.errors import DsgdError
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.ledger import monotonic
from dsgd_bench.host import provenance
from dsgd_bench.io import printing

if TYPE_CHECKING:
    from dsgd_bench.bench.torch_forms import TorchForms

DASH = "-"
"""Stands where there is no number; why is said above the table."""

SLICE = 0.02
"""Seconds of gradients that are computed at a stretch, the forms taking turns."""

SETTLED = 0.05
"""Seconds between stretches if there are several threads: those of NumPy's library and
those of torch go on asking for work for a while, and would slow the other ones down."""

BATCHES = 8
"""Different batches that take turns."""

APART = {"float64": 1e-8, "float32": 1e-2, "tf32": 0.1, "bfloat16": 0.2}
"""How far, relative to ours, another gradient may be before it is an error. Float32 is
usually within 1e-5; a unit that rounding turns on or off makes a thousandth. The other
two round what they multiply to 10 and 7 bits, in every layer."""


Form = Callable[[NDArray[np.intp]], float]
"""Computes the gradient of a batch, given by its positions; returns the loss."""


@dataclass
class Timed:
    """What one network has shown at one batch size.

    Attributes
    ----------
    name : str
        In `CASES`.
    batch, dimension : int
        Samples of a gradient; elements of the model.
    floor : float
        The least seconds of a gradient on this device.
    seconds : dict
        Form -> seconds of one gradient, one per stretch; ``"ours"`` is there always.
    apart : dict
        Form -> distance of its gradient from ours, relative to ours.
    """

    name: str
    batch: int
    dimension: int
    floor: float
    seconds: dict[str, list[float]] = field(default_factory=dict)
    apart: dict[str, float] = field(default_factory=dict)


def gradients(fabric: Fabric, options: ProblemOptions) -> None:
    """Time gradients of our problems and of torch's modules in turns, and print.

    Raises
    ------
    ConfigError
        If the device, or a precision on it, is not there.
    DsgdError
        If torch's gradient is another one than ours.
    """
    device = arrays.device(options.device, precision=options.precision)
    floor = measured_floor(device, options)
    missing: dict[str, str] = {}
    found = [
        _measure(name, batch, device, floor, options, missing)
        for name in options.names
        for batch in options.batches or (CASES[name].batch,)
    ]
    facts = _facts(device, floor, options, missing)
    lines = header(fabric, "problems: gradients against the floor and PyTorch", facts)
    printing.lines([*lines, *report(found, options)])
    if options.json:
        rows = [asdict(timed) for timed in found]
        write_json(options.json, command("problems", options.words), facts, rows)


def measured_floor(device: Host, options: ProblemOptions) -> Floor:
    """Measure what this device does best in the element type asked for."""
    return Floor(
        copy_bandwidth(device, threads=options.threads),
        matmul_rate(device, options.dtype, options.precision),
    )


def _measure(
    name: str,
    batch: int,
    device: Host,
    floor: Floor,
    options: ProblemOptions,
    missing: dict[str, str],
) -> Timed:
    """Check, then time one network at one batch size."""
    case = CASES[name]
    problem = case.problem(options.dtype, device)
    random = rng.generator(0, "bench")
    start = arrays.host(problem.initial())
    # Away from the start, where biases are zero: a mistake there could not be seen.
    start = start + random.normal(0.0, 0.01, start.shape).astype(start.dtype)
    x = device.put(start)
    out = np.empty_like(x)
    batches = [random.integers(SAMPLES, size=batch) for _ in range(BATCHES)]
    work = {
        "operations": case.operations(batch),
        "nbytes": case.nbytes(batch, problem),
    }
    found = Timed(name, batch, problem.dimension, floor.seconds(**work))
    forms: dict[str, Form] = {"ours": lambda some: problem.gradient(x, some, out)}
    forms["ours"](batches[0])
    g = arrays.host(out).copy()
    theirs = torch_forms(case, device, options, missing)
    if theirs is not None:
        theirs.take(start)
        for form in ("eager", "compiled")[: 1 + options.compiled]:
            reason = _try(theirs, form, batches[0])
            if reason:
                missing[f"{form} {name}"] = reason
                continue
            found.apart[form] = _distance(theirs.gradient(g), g)
            _check(name, form, found.apart[form], options)
            forms[form] = getattr(theirs, form)
    found.seconds = interleaved(forms, batches, options)
    return found


def torch_forms(
    case: Case, device: Host, options: ProblemOptions, missing: dict[str, str]
) -> "TorchForms | None":
    """Return the network in torch; None, and the reason in `missing`, if there is none.

    Parameters
    ----------
    case : Case
        The network.
    device : Host
        Where to compute.
    options : ProblemOptions
        What was asked.
    missing : dict
        What is missing -> why; filled.
    """
    if not options.torch:
        missing["PyTorch"] = "not asked for"
        return None
    try:
        from dsgd_bench.bench import torch_forms as module
    except (ImportError, OSError) as error:
        missing["PyTorch"] = f"cannot be loaded ({error})"
        return None
    if device.kind == "cuda" and not module.has_cuda():
        missing["PyTorch"] = "sees no GPU: it is built without CUDA, or for another"
        return None
    data = case.samples(np.dtype(options.dtype))
    return module.TorchForms(case, data, device, options.precision)


def _try(theirs: "TorchForms", form: str, positions: NDArray[np.intp]) -> str:
    """Compute a first gradient; return why that cannot be, or nothing."""
    try:
        getattr(theirs, form)(positions)
    except Exception as error:  # noqa: BLE001 - compilers fail in ways of their own
        text = " ".join(str(error).split())
        return f"{type(error).__name__}: {text[:120]}"
    return ""


def _distance(other: Array, ours: Array) -> float:
    return float(np.linalg.norm(other - ours) / np.linalg.norm(ours))


def _check(name: str, form: str, apart: float, options: ProblemOptions) -> None:
    """Refuse to compare the speed of two different things."""
    kind = options.precision if options.precision != "float32" else options.dtype
    if not apart <= APART[kind]:
        raise DsgdError(
            f"torch's gradient of {name} ({form}) is {apart:.2g} away from ours, "
            f"relative to it, where {APART[kind]:g} is allowed: report this as an "
            "error of dsgd-bench"
        )


def interleaved(
    forms: dict[str, Form], batches: Sequence[NDArray[np.intp]], options: ProblemOptions
) -> dict[str, list[float]]:
    """Time all forms in turns, in random order; return seconds of one gradient each.

    Parameters
    ----------
    forms : dict
        Name -> what computes one gradient, complete on return.
    batches : sequence of array
        What they compute it of, in turns.
    options : ProblemOptions
        How often.
    """
    calls = {}
    for name, form in forms.items():
        once = _stretch(form, batches, len(batches)) / len(batches)
        calls[name] = max(1, round(SLICE / once))
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    names, stream = list(forms), rng.generator(0, "order")
    for number in range(options.iterations + options.warm_up):
        for k in stream.permutation(len(names)):
            name = names[k]
            if options.threads > 1:
                time.sleep(SETTLED)
            forms[name](batches[0])  # wakes its threads
            took = _stretch(forms[name], batches, calls[name]) / calls[name]
            if number >= options.warm_up:
                seconds[name].append(took)
    return seconds


def _stretch(form: Form, batches: Sequence[NDArray[np.intp]], calls: int) -> float:
    """Return the seconds of so many gradients, one after the other."""
    started = monotonic()
    for call in range(calls):
        form(batches[call % len(batches)])
    return monotonic() - started


def _facts(
    device: Host, floor: Floor, options: ProblemOptions, missing: dict[str, str]
) -> dict[str, str]:
    """Return what stands above the table."""
    kind = options.dtype
    if options.precision != "float32":
        kind += f", multiplied in {options.precision}"
    processor = provenance.host().cpu
    facts = {
        "Device": f"{options.device}, {options.threads} threads, {kind}",
        "Processor": f"{device.describe().get('name', processor)}",
        "NumPy": np.__version__,
        "Iterations": f"{options.iterations} stretches of at least {1e3 * SLICE:g} ms "
        f"or one gradient, warm-up {options.warm_up}",
        "Floor": f"copy {floor.bandwidth / 1e9:.4g} GB/s read and written, product "
        f"{floor.rate / 1e9:.4g} Gflop/s; the larger of bytes and operations over "
        "these",
        "Gradient": "gather the batch, forward, backward, read the loss",
        "apart": "distance of torch's gradient from ours, relative to ours",
    }
    if "PyTorch" not in missing:
        from dsgd_bench.bench import torch_forms as module

        facts["PyTorch"] = module.described()
    return facts | {f"No {what}": why for what, why in missing.items()}


def report(found: Sequence[Timed], options: ProblemOptions) -> list[str]:
    """Return the table, the figures of merit and the command, as lines."""
    lines = table([_row(timed, options) for timed in found])
    for timed in found:
        name = f"{timed.name}_{timed.batch}"
        ours = median(timed.seconds["ours"])
        lines += [
            fom(f"gradient_{name}", 1e3 * ours, "ms"),
            fom(f"gradient_over_floor_{name}", ours / timed.floor, "1"),
        ]
        for form in ("eager", "compiled"):
            if form in timed.seconds:
                ratio = median(timed.seconds[form]) / ours
                lines.append(fom(f"torch_{form}_over_ours_{name}", ratio, "1"))
    return [*lines, command("problems", options.words)]


def _row(timed: Timed, options: ProblemOptions) -> Row:
    ours = timed.seconds["ours"]
    row = {
        "Problem": timed.name,
        "Batch": str(timed.batch),
        "Elements": str(timed.dimension),
        "Ours(ms)": f"{1e3 * median(ours):.4g}",
        "Floor(ms)": f"{1e3 * timed.floor:.3g}",
        "Ours/floor": f"{median(ours) / timed.floor:.3g}",
    }
    for form in ("eager", "compiled"):
        theirs = timed.seconds.get(form, [])
        ratio = ratio_of_medians(theirs, ours)
        title = form.capitalize()
        row[f"{title}(ms)"] = f"{1e3 * median(theirs):.4g}" if theirs else DASH
        row[f"{title}/ours"] = f"{ratio.value:.3f}" if ratio else DASH
        row[f"{form} low"] = f"{ratio.low:.3f}" if ratio else DASH
        row[f"{form} high"] = f"{ratio.high:.3f}" if ratio else DASH
        row[f"{form} apart"] = f"{timed.apart[form]:.1e}" if theirs else DASH
    for form, times in timed.seconds.items():
        row |= spread(form.capitalize(), times, options.percentiles, full=options.full)
    return row
