"""The verb ``data``: fetches published data sets, or lists them."""

import argparse
from pathlib import Path

from dsgd_bench.cli.verb_parts import Verbs
from dsgd_bench.io import printing


def add(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("data", help="fetch published data sets, or list them")
    actions = verb.add_subparsers(required=True, metavar="ACTION")
    fetch = actions.add_parser("fetch", help="download what is missing of a data set")
    fetch.add_argument("name", help="such as mnist; data list shows all")
    fetch.set_defaults(verb=fetch_set)
    shown = actions.add_parser("list", help="data sets, and whether they are intact")
    shown.set_defaults(verb=show)
    for action in (fetch, shown):
        action.add_argument(
            "--folder",
            type=Path,
            default=Path("data"),
            help="where data sets lie, the problem setting folder (default: data)",
        )


def fetch_set(arguments: argparse.Namespace) -> int:
    """Download a data set; ranks never do this."""
    from dsgd_bench.cli.data_display import download_display
    from dsgd_bench.problems import catalog, fetch

    data_set = catalog.find(arguments.name)
    with download_display() as watch:
        fetch.fetch(data_set, arguments.folder, watch)
    printing.line(f"{data_set.name} is complete in {data_set.where(arguments.folder)}")
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Print every data set that can be fetched, and whether it is there and intact."""
    from dsgd_bench.cli.data_display import print_data_sets

    print_data_sets(arguments.folder)
    return 0
