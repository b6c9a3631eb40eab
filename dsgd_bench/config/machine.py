"""Where to run, read from TOML: machine file -> `Machine`."""

from os import PathLike
from pathlib import Path

from msgspec import structs

from dsgd_bench.config.sweep import Table
from dsgd_bench.errors import ConfigError
from dsgd_bench.io import user_text
from dsgd_bench.spec import strict
from dsgd_bench.spec.batch import SET, SlurmSpec, meant, never
from dsgd_bench.spec.machine import Machine


def read_machine(path: str | PathLike[str]) -> Machine:
    """Read a machine file.

    Raises
    ------
    ConfigError
        In one sentence, if it cannot be read or something in it is wrong.
    """
    path = Path(path)
    try:
        machine = Machine(**strict.read_table(load(path), strict.keys_of(Machine), ""))
        _check_names(machine)
        if not any("{ranks}" in word for word in machine.launcher):
            raise ConfigError(
                "launcher must have the word {ranks} where the number of ranks belongs"
            )
        if machine.slurm is None:
            return machine
        _check_slurm(machine.slurm, machine.stop_margin)
        template = str(_template(path.resolve().parent, machine.slurm.template))
        slurm = structs.replace(machine.slurm, template=template)
        return structs.replace(machine, slurm=slurm)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _check_names(machine: Machine) -> None:
    """Refuse names that no environment can have."""
    for name in machine.env:
        if not name or "=" in name:
            raise ConfigError(
                f"env has the name {name!r}, which no environment variable can have: a "
                "name is not empty and has no equals sign"
            )


def _check_slurm(slurm: SlurmSpec, stop_margin: float) -> None:
    for word in slurm.options:
        if instead := SET.get(meant(word)):
            raise ConfigError(
                f"slurm.options has {word}, which every job script sets by itself: "
                f"{instead}, and leave it out here"
            )
        if why := never(word):
            raise ConfigError(f"slurm.options has {word}: {why}; leave it out")
    if slurm.seconds <= stop_margin:
        raise ConfigError(
            f"slurm.time is {slurm.time}, not longer than stop_margin "
            f"({stop_margin:g} s), so that jobs would stop at once: make it longer"
        )


def _template(folder: Path, name: str) -> Path:
    """Return the path of a job template that must lie in `folder`."""
    path = folder / name
    if path.parent != folder or not (user_text.is_there(path) and path.is_file()):
        beside = ", ".join(sorted(found.name for found in folder.glob("*.sbatch.j2")))
        raise ConfigError(
            f"slurm.template is {name}, which is no file beside the machine file: "
            + (f"choose one of {beside}" if beside else "put it there")
        )
    return path


def load(path: Path) -> Table:
    """Return the tables of a TOML file.

    Raises
    ------
    ConfigError
        If it cannot be read, or is no TOML.
    """
    try:
        return user_text.toml(user_text.read(path))
    except ConfigError as error:
        raise ConfigError(f"the file {error}") from None
