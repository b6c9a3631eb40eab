"""The tables of ``list``: algorithms, problems, graphs and slowdowns."""

from rich import box
from rich.table import Table
from rich.text import Text

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.cli.console import console
from dsgd_bench.errors import ConfigError
from dsgd_bench.graphs import EXAMPLES, GRAPHS, make, usage
from dsgd_bench.problems import PROBLEMS, settings
from dsgd_bench.slowdowns import KINDS
from dsgd_bench.spec.strict import keys_of
from dsgd_bench.spec.trial import SlowdownSpec

LISTED_RANKS = (4, 8, 16)
"""Numbers of ranks for which graphs are listed."""


def print_lists() -> None:
    """Print algorithms, problems, graphs and slowdowns, with settings and papers."""
    out = console()
    out.print(_algorithms())
    out.print(_problems())
    out.print(_graphs())
    drawn = " and ".join(name for name in EXAMPLES if ":" in name)
    out.print(
        f"A message is a model. Numbers of random graphs are those of {drawn}; "
        "- where a graph cannot have so many ranks."
    )
    out.print(_slowdowns())


def _algorithms() -> Table:
    table = Table("algorithm", "what", "settings", "traits", box=box.SIMPLE_HEAD)
    for name, entry in ALGORITHMS.items():
        shown = ", ".join(f"{k}={v[1]}" for k, v in entry.settings.items())
        cited = Text(f"{entry.summary}\n{entry.paper}")
        table.add_row(name, cited, shown, ", ".join(sorted(entry.traits)))
    return table


def _problems() -> Table:
    table = Table("problem", "what", "settings", box=box.SIMPLE_HEAD)
    for name, kind in PROBLEMS.items():
        shown = ", ".join(f"{k}={v[1]}" for k, v in settings(name).items())
        table.add_row(name, (kind.__doc__ or "").partition(";")[0], shown)
    return table


def _graphs() -> Table:
    at = ", ".join(map(str, LISTED_RANKS))
    headings = (
        "graph",
        "what",
        f"spectral gap\nat {at}",
        f"messages per step\nat {at}",
    )
    table = Table(box=box.SIMPLE_HEAD)
    for heading in headings:
        table.add_column(Text(heading))
    for name, builder in GRAPHS.items():
        what = (builder.__doc__ or "").partition("\n")[0]
        table.add_row(usage(name), what, *_graph_numbers(name))
    return table


def _slowdowns() -> Table:
    """Tabulate the kinds of ``[slowdown]``, each with the keys that it reads."""
    table = Table("slowdown", "what", "settings", box=box.SIMPLE_HEAD)
    defaults = keys_of(SlowdownSpec)
    for name, kind in KINDS.items():
        shown = ", ".join(f"{key}={defaults[key][1]}" for key in kind.settings)
        table.add_row(name, (kind.__doc__ or "").partition("\n")[0], shown)
    return table


def _graph_numbers(base: str) -> tuple[str, str]:
    """Return spectral gaps and messages per step at `LISTED_RANKS`."""
    names = [name for name in EXAMPLES if name.partition(":")[0] == base]
    gaps, messages = [], []
    for ranks in LISTED_RANKS if names else ():
        try:
            graph = make(names[0], ranks)
        except ConfigError:
            gaps.append("-")
            messages.append("-")
        else:
            gaps.append(f"{graph.spectral_gap():.3f}")
            messages.append(f"{graph.messages_per_step():.3g}")
    return ", ".join(gaps) or "-", ", ".join(messages) or "-"
