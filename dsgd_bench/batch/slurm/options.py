"""Options of sbatch that would change what ``submit`` means: refused, or not passed on.

They come from the machine file, from ``#SBATCH`` lines of a template, and from
variables of the environment, which win over those lines without a word.
"""

import os
import re
import shlex

from dsgd_bench.errors import ConfigError
from dsgd_bench.spec import batch

SHORT = {
    "a": "--array",
    "h": "--help",
    "M": "--clusters",
    "Q": "--quiet",
    "V": "--version",
    "W": "--wait",
}
"""Short form -> option, of those that a template may not have."""

OTHERS = ("#PBS", "#BSUB")
"""Beginnings of lines in which sbatch reads options of other batch systems."""

VARIABLE = {
    "--array": "SBATCH_ARRAY_INX",
    "--mem": "SBATCH_MEM_PER_NODE",
    "--switches": "SBATCH_REQ_SWITCH",
    "--time": "SBATCH_TIMELIMIT",
}
"""Option -> its variable, where that has another name."""

DROPPED = {
    "SBATCH_ARRAY_INX": "slurm.array sets it",
    "SBATCH_ERROR": "what a job prints goes into one log beside the script",
    "SBATCH_EXCLUSIVE": "slurm.exclusive sets it",
    "SBATCH_JOB_NAME": "every job has a name by which it is found",
    "SBATCH_NO_REQUEUE": "slurm.restarts sets it",
    "SBATCH_OUTPUT": "what a job prints goes into one log beside the script",
    "SBATCH_QUIET": "the job's number would not be printed",
    "SBATCH_REQUEUE": "slurm.restarts sets it",
    "SBATCH_TEST_ONLY": "submit sends jobs, submit --dry-run does not",
    "SBATCH_WAIT": "submit does not wait for the end of jobs",
}
"""Variable that is never passed on -> why; not every Slurm knows all of them."""


def check_script(text: str, template: str, jobs: int) -> None:
    """Refuse a script whose options change what ``submit`` means.

    Parameters
    ----------
    text : str
        The script.
    template : str
        What it was made from, for the sentence.
    jobs : int
        Jobs that share its trials; more than one are an array.

    Raises
    ------
    ConfigError
        If it is a heterogeneous job, waits, sends nothing, or makes another array.
    """
    for line in _head(text):
        words = _words(line)
        if line.startswith(OTHERS):
            why = "sbatch reads it as an option: write #SBATCH lines only"
        elif words[:1] in (["hetjob"], ["packjob"]):
            why = "all ranks of a trial are of one job: leave it out"
        else:
            why = next(filter(None, (_refusal(word, jobs) for word in words)), "")
        if why:
            raise ConfigError(f"the template {template} has the line {line!r}: {why}")


def _head(text: str) -> list[str]:
    """Return the lines in which sbatch looks for options: those before any command."""
    found = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            break
        if line.startswith(("#SBATCH", *OTHERS)):
            found.append(line)
    return found


def _words(line: str) -> list[str]:
    rest = line.partition(" ")[2]
    try:
        return shlex.split(rest, comments=True)
    except ValueError:  # quotes that do not match: sbatch will say so
        return rest.split()


def _refusal(word: str, jobs: int) -> str:
    """Return why a word of an ``#SBATCH`` line is refused, or nothing."""
    if re.match(r"-\w", word):
        word = SHORT.get(word[1], word)
    if batch.meant(word) == "--array":
        ours = jobs > 1 and re.fullmatch(rf"--array=1-{jobs}(%[0-9]+)?", word)
        return "" if ours else "say slurm.array, and take the template's own line"
    return batch.never(word)


def dropped(text: str) -> dict[str, str]:
    """Return the variables that sbatch must not see, each with the reason.

    A variable wins over the line of the script that says the same.

    Parameters
    ----------
    text : str
        The script.

    Raises
    ------
    ConfigError
        If a variable would send the job where it is not looked for.
    """
    if os.environ.get("SBATCH_CLUSTERS"):
        raise ConfigError(
            "SBATCH_CLUSTERS is set, by which sbatch alone would turn to another "
            "cluster: unset it, and name the cluster in SLURM_CLUSTERS, which squeue, "
            "sacct and scontrol mind as well"
        )
    words = (word for line in _head(text) for word in _words(line))
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    named = {
        VARIABLE.get(name, f"SBATCH_{name[2:].upper().replace('-', '_')}"): (
            f"the job's script has {name}"
        )
        for name in options
    }
    return {name: why for name, why in (named | DROPPED).items() if name in os.environ}
