"""One trial on its way to the ranks, as a file."""

from pathlib import Path

import msgspec
from msgspec import Struct

from dsgd_bench.errors import ConfigError, TraceError
from dsgd_bench.io import files
from dsgd_bench.spec.machine import Machine
from dsgd_bench.spec.trial import Trial


class Job(Struct, frozen=True, forbid_unknown_fields=True):
    """One trial on its way to the ranks: all that they read.

    Attributes
    ----------
    study : str
        Name of the study that the trial belongs to.
    trial : Trial
        What is run.
    machine : Machine
        Where, and how long a rank may be silent.
    largest : bool
        Whether no trial of the study has more ranks, so that all hosts are there.
    """

    study: str
    trial: Trial
    machine: Machine
    largest: bool = True

    def write(self, path: Path) -> None:
        """Write the job as JSON, whole or not at all.

        Raises
        ------
        TraceError
            If the file cannot be written.
        """
        text = msgspec.json.format(msgspec.json.encode(self), indent=2)
        try:
            files.write_bytes(path, text)
        except OSError as error:
            raise TraceError(
                f"{path} cannot be written ({error}): free some space there, or choose "
                "another --results folder"
            ) from None

    @classmethod
    def read(cls, path: Path) -> "Job":
        """Read what `write` wrote.

        Raises
        ------
        ConfigError
            If there is no such file, or it is not a job of this version.
        """
        try:
            return msgspec.json.decode(files.read_bytes(path), type=cls)
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"{path} is not a job that dsgd-bench wrote: {error}"
            ) from None
