"""From trials of one size and a machine to the text of a job script; nothing is run.

Templates are Jinja's. Whatever they print is quoted for the shell, unless it is marked
``safe`` there; so no value of a study or machine file can become a command.
"""

import math
import os
import re
import shlex
import sys
import unicodedata
import uuid
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from dsgd_bench.batch.slurm import options
from dsgd_bench.batch.slurm.groups import Group, Order
from dsgd_bench.errors import ConfigError

SCRIPT, TRIALS, MACHINE = "job.sh", "trials.txt", "machine"
"""In the folder of a job: its script, its trials, the folder of the machine file."""

STUDY = "study"
"""Folder there of a study file whose name may be that of another file in it."""

NAME_LENGTH = 60
"""Characters of the study's name in the name of a job."""

KEYS = (
    "account",
    "partition",
    "qos",
    "constraint",
    "time",
    "gpus_per_node",
    "exclusive",
    "at_once",
    "restarts",
    "modules",
    "preamble",
    "options",
)
"""Keys of the machine file's table [slurm] that templates see as they are."""

UNFIT = "'\"`\\"
"""Characters that Slurm reads in its own way on ``#SBATCH`` lines."""


def render(order: Order, group: Group, folder: Path) -> str:
    """Return the script of the job, or array of jobs, that runs a group.

    Parameters
    ----------
    order : Order
        The study and the machine.
    group : Group
        Some of its trials.
    folder : Path
        Where the script, and copies of what it reads, will lie; absolute.

    Raises
    ------
    ConfigError
        If the template has an error, or a name or a path cannot be written into a
        script.
    """
    path = Path(group.slurm.template)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),
        undefined=jinja2.StrictUndefined,
        autoescape=True,  # what `quoted` returns is left alone
        finalize=quoted,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    try:
        text = environment.get_template(path.name).render(_values(order, group, folder))
    except jinja2.TemplateError as error:
        where = getattr(error, "filename", None) or path
        line = f", line {error.lineno}" if hasattr(error, "lineno") else ""
        raise ConfigError(
            f"the template {where}{line} cannot be used: {error.message}"
        ) from None
    options.check_script(text, path.name, group.jobs)
    return text


def study_place(order: Order) -> str:
    """Return where the copy of the study file lies in the folder of a job.

    What else is written there never ends in ``.toml``: script, list of trials, folders,
    the record, logs, lists of modules, and what tells the job to stop.
    """
    name = order.study.path.name
    return name if name.endswith(".toml") else f"{STUDY}/{name}"


def unique_name(order: Order, group: Group) -> str:
    """Return a name that no other job has, by which it can be looked for.

    Only letters, digits and dashes: ``squeue --name`` takes commas for separators.
    """
    study = re.sub(r"[^\w.+-]", "_", order.study.name, flags=re.ASCII)[:NAME_LENGTH]
    return f"{study}-{group.ranks}-{uuid.uuid4().hex[:12]}"


def quoted(value: Any) -> Markup:
    """Return a value as one word of shell.

    Raises
    ------
    ConfigError
        If it is more than one line, or has characters that do not print.
    """
    if isinstance(value, Markup):
        return value
    text = str(value)
    if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in text):
        raise ConfigError(
            f"{text!r} cannot stand in a job script: it must be one line of characters "
            "that print; rename it"
        )
    return Markup(shlex.quote(text) if text else "")


def _values(order: Order, group: Group, folder: Path) -> dict[str, Any]:
    """Return everything that templates may use."""
    slurm = group.slurm
    log = folder / ("slurm-%A_%a.out" if group.jobs > 1 else "slurm-%j.out")
    return {key: getattr(slurm, key) for key in KEYS} | {
        "study": order.study.name,
        "job_name": _fit(f"{order.study.name}-{group.ranks}", "the study's name"),
        "trials": len(group.trials),
        "ranks": group.ranks,
        "nodes": group.nodes,
        "ranks_per_node": group.ranks_per_node,
        "cores_per_rank": group.cores_per_rank,
        "array": group.jobs,
        "stop_margin": math.ceil(order.machine.stop_margin),
        "launcher": order.machine.launcher[0],
        "here": _fit(os.getcwd(), "the working folder"),  # noqa: PTH109 - as the shell
        "folder": folder,
        "log": _fit(str(log.parent).replace("%", "%%"), "the results folder")
        + f"/{log.name}",
        "python": sys.executable,
        "results": order.results,
        "study_file": study_place(order),
        "machine_file": order.machine_file.name,
        "changes": order.changes,
    }


def _fit(text: str, what: str) -> str:
    """Return `text` if it may stand on an ``#SBATCH`` line.

    Raises
    ------
    ConfigError
        If it has quotes or backslashes.
    """
    if any(letter in text for letter in UNFIT):
        raise ConfigError(
            f"{what}, {text!r}, cannot stand on an #SBATCH line: rename it without "
            "quotes and backslashes"
        )
    return text
