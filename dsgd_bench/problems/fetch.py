"""Downloading published data sets: the only module that uses the network.

Only the command ``dsgd-bench data fetch`` imports it; no rank ever downloads.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsgd_bench.errors import ConfigError
from dsgd_bench.problems import catalog
from dsgd_bench.problems.catalog import DataSet, File

CHUNK = 2**18
"""Bytes that are read from the network and shown as progress at a time."""

Watch = Callable[[File], Any]
"""From a file to the progress bar of its download, as pooch wants it."""


def fetch(data_set: DataSet, folder: Path, watch: Watch) -> None:
    """Download what is missing or broken of a data set, and check it.

    A file gets its name only when all of it has arrived with the right checksum, so a
    broken download leaves nothing behind that could be taken for it.

    Parameters
    ----------
    data_set : DataSet
        Which.
    folder : Path
        Where data sets lie; it is made if it is not there.
    watch : callable
        Called with each file that is looked at; see `Watch`.

    Raises
    ------
    ConfigError
        Where pooch is not installed, something cannot be downloaded or written, or
        what arrives is not what was published.
    """
    if catalog.is_intact(data_set, folder):
        return
    pooch = _pooch(data_set, folder)
    for file in data_set.packed:
        try:
            pooch.retrieve(
                data_set.url + file.name,
                known_hash=f"md5:{file.md5}",
                fname=file.name,
                path=data_set.place(folder),
                downloader=pooch.HTTPDownloader(
                    progressbar=watch(file), chunk_size=CHUNK
                ),
            )
        except (OSError, ValueError) as error:  # requests' errors are OSError
            raise ConfigError(
                f"{data_set.url}{file.name} could not be downloaded "
                f"({_cause(error)}); mend that and try again, or, where there is a "
                f"network, {data_set.by_hand(folder)}"
            ) from error
    catalog.read(data_set, folder)


def _pooch(data_set: DataSet, folder: Path) -> Any:
    try:
        import pooch
    except ImportError as error:
        raise ConfigError(
            "data fetch needs pooch, which is not installed; run `pip install pooch`, "
            f"or {data_set.by_hand(folder)}"
        ) from error
    pooch.get_logger().setLevel(logging.WARNING)  # the display says what is going on
    return pooch


def _cause(error: BaseException) -> str:
    """Return what an error began with: requests wraps it three times."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).split(". ")[0].rstrip(".")
