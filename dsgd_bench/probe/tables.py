"""What the probe prints: times by size, the lines through them, who answers, gradients.

In the manner of the OSU benchmarks: comments begin with ``#``, sizes are bytes.
"""

import textwrap
from collections.abc import Mapping

from dsgd_bench.analysis.statistics import median
from dsgd_bench.bench.output import Row, spread, table
from dsgd_bench.probe.samples import ProbeOptions, Series
from dsgd_bench.spec.machine_profile import (
    ALLOCATED,
    FAR,
    NEAR,
    NONE,
    PASSIVE,
    Measured,
    Profile,
)

US, MS = 1e6, 1e3
WIDTH = 88

CLASSES = {NEAR: "two ranks of one node", FAR: "two ranks of two nodes"}

QUESTION = "Is your asynchronous really asynchronous?"


def latencies(title: str, found: Mapping[str, Series]) -> list[str]:
    """Return the medians of all operations, in a line per size.

    Parameters
    ----------
    title : str
        What stands above.
    found : mapping
        Operation -> its series.
    """
    medians = {
        name: dict(zip(series.sizes, series.measured().medians, strict=True))
        for name, series in found.items()
    }
    rows: list[Row] = []
    for size in sorted(set().union(*medians.values())):
        row = {"Size": str(size)}
        for name, times in medians.items():
            row[name] = f"{US * times[size]:.4g}" if size in times else "-"
        rows.append(row)
    return [f"# {title}, median (us)", *table(rows)]


def details(title: str, series: Series, options: ProbeOptions) -> list[str]:
    """Return all that is known of one operation, in a line per size."""
    rows: list[Row] = []
    for size, samples in zip(series.sizes, series.samples, strict=True):
        starts, whole = samples.T.tolist()
        latency = median(whole)
        rows.append(
            {
                "Size": str(size),
                "Latency(us)": f"{US * latency:.4g}",
                "Overhead(us)": f"{US * median(starts):.4g}",
                "Bandwidth(MB/s)": f"{size / latency / 1e6:.4g}",
                **spread(
                    "Latency",
                    whole,
                    options.percentiles,
                    full=options.full,
                    per_second=US,
                ),
            }
        )
    return [f"# {title}", *table(rows)]


def lines(profile: Profile) -> list[str]:
    """Return the line that was fitted to each operation, and how well it fits."""
    rows = [
        _line(pair, name, found)
        for pair, operations in profile.pairs.items()
        for name, found in operations.items()
    ]
    for name in ("allreduce", "neighborhood"):
        for ranks, found in getattr(profile, name).items():
            rows.append(_line(f"{ranks} ranks", name, found))
    return [
        "# Lines: an empty one, and bit/s beyond; off: medians from the line, relative",
        *table(rows),
    ]


def _line(who: str, name: str, found: Measured) -> Row:
    rate = f"{found.rate / 1e9:.4g}" if found.rate else "-"
    one_size = len(found.sizes) == 1
    return {
        "Who": who,
        "Operation": name,
        "Empty(us)": f"{US * found.seconds:.4g}",
        "Overhead(us)": f"{US * found.overhead:.4g}",
        "Rate(Gbit/s)": rate,
        "Off, median": "-" if one_size else f"{found.residual_median:.0%}",
        "Off, most": "-" if one_size else f"{found.residual_max:.0%}",
    }


def answers(profile: Profile) -> list[str]:
    """Return how busy targets answer, the verdict, and what mends it."""
    rows = [
        {
            "Who": pair,
            "Window": f"MPI_Win_{flavor}",
            "Operation": name,
            "Alone(ms)": f"{MS * answer.alone:.3g}",
            "With thread(ms)": f"{MS * answer.with_thread:.3g}",
            "Verdict": answer.verdict,
        }
        for pair, flavors in profile.busy.items()
        for flavor, operations in flavors.items()
        for name, answer in operations.items()
    ]
    return [
        f"# {QUESTION} Operations on a target that computes "
        f"{MS * profile.busy_target:g} ms",
        *table(rows),
        *(f"# {pair}: {said}" for pair, said in _verdicts(profile)),
        *(line for sentence in profile.remedies for line in _wrapped(sentence)),
    ]


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, WIDTH, initial_indent="# ", subsequent_indent="#   ")


def _verdicts(profile: Profile) -> list[tuple[str, str]]:
    """Return the answer to the question for each class of pairs."""
    found = []
    for pair, flavors in profile.busy.items():
        verdicts = {answer.verdict for answer in flavors[ALLOCATED].values()}
        if verdicts == {PASSIVE}:
            said = "yes: targets answer while they compute"
        elif NONE in verdicts:
            said = "no: some operations wait until the target calls MPI"
        else:
            said = "only with a progress thread"
        found.append((pair, said))
    return found


def computing(profile: Profile) -> list[str]:
    """Return what gradients take, and what the clock does."""
    rows = [
        {
            "Gradient of": kind,
            "Batch": str(found.batch),
            "Elements": str(found.dimension),
            "Median(ms)": f"{MS * found.seconds:.4g}",
            "P10(ms)": f"{MS * found.p10:.4g}",
            "P90(ms)": f"{MS * found.p90:.4g}",
        }
        for kind, found in profile.gradients.items()
    ]
    return [
        f"# All {profile.ranks} ranks compute at once, problems as they are by default",
        *table(rows),
        f"# Looking at the clock takes {1e9 * profile.timer:.0f} ns",
    ]
