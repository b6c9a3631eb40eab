"""What a machine file may ask of the batch system, every text fit for a job script.

A text that reaches a script is one line. Those that stand on ``#SBATCH`` lines have no
quotes and backslashes either: Slurm reads these in a way of its own.
"""

from typing import Annotated

from msgspec import Meta, Struct

from dsgd_bench.spec.ranges import Few, Index, Ranks
from dsgd_bench.spec.strict import SAYS

_WORD = r"""[^\x00-\x1f\x7f-\x9f\u2028\u2029'"`\\]"""
"""A character that means nothing to a shell within quotes, and nothing to Slurm."""

Word = Annotated[
    str,
    Meta(
        pattern=rf"\A{_WORD}+\Z",
        extra={SAYS: "text of one line without quotes or backslashes"},
    ),
]
Option = Annotated[
    str,
    Meta(
        pattern=rf"\A--[a-z][a-z-]+(={_WORD}+)?\Z",
        extra={SAYS: "an option such as --mem=0, of one line without quotes"},
    ),
]
ShellLine = Annotated[
    str,
    Meta(
        pattern=r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]+\Z",
        extra={SAYS: "one line of shell"},
    ),
]
TimeLimit = Annotated[
    str,
    Meta(
        pattern=r"\A([1-9][0-9]{0,7}|([0-9]{1,5}-)?[0-9]{1,4}:[0-5][0-9]:[0-5][0-9])\Z",
        extra={SAYS: 'text such as "02:30:00", "1-12:00:00" or "90", minutes'},
    ),
]


SET = {
    "--job-name": "its value is made from study and ranks",
    "--output": "it goes beside the script",
    "--error": "it goes beside the script",
    "--open-mode": "output is appended",
    "--chdir": "jobs start where they were submitted",
    "--nodes": "say slurm.ranks_per_node",
    "--ntasks": "the study sets it",
    "--ntasks-per-node": "say slurm.ranks_per_node",
    "--cpus-per-task": "say slurm.cores_per_rank",
    "--time": "say slurm.time",
    "--gpus-per-node": "say slurm.gpus_per_node",
    "--account": "say slurm.account",
    "--partition": "say slurm.partition",
    "--qos": "say slurm.qos",
    "--constraint": "say slurm.constraint",
    "--exclusive": "say slurm.exclusive",
    "--array": "say slurm.array",
    "--requeue": "say slurm.restarts",
    "--no-requeue": "say slurm.restarts",
    "--signal": "say stop_margin",
}
"""Option of sbatch that every script has already -> what to do instead."""

NEVER = {
    "--clusters": "name the cluster in SLURM_CLUSTERS in the environment, which "
    "squeue, sacct and scontrol mind as well",
    "--help": "nothing would be sent",
    "--parsable": "submit passes it to sbatch",
    "--quiet": "the job's number would not be printed",
    "--test-only": "nothing would be sent; take submit --dry-run",
    "--usage": "nothing would be sent",
    "--version": "nothing would be sent",
    "--wait": "submit does not wait for the end of jobs",
    "--wrap": "the job is the script",
}
"""Option of sbatch that changes what ``submit`` means -> why it is refused."""

WHOLE = ("--gpus",)
"""Options that are the beginning of one of these, and options of their own."""


def meant(word: str) -> str:
    """Return the name of an option, which Slurm lets users cut short."""
    name = word.partition("=")[0]
    known = (*SET, *NEVER)
    if name in known or name in WHOLE or not name.startswith("--"):
        return name
    return next((longer for longer in known if longer.startswith(name)), name)


def never(word: str) -> str:
    """Return why an option cannot be given to sbatch by anything, or nothing."""
    if word.startswith("--dep"):
        single = "singleton" in word.partition("=")[2]
        return "every job has a name of its own, so it waits for none" if single else ""
    return NEVER.get(meant(word), "")


class SlurmSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to ask the batch system Slurm for; None is not asked for.

    Attributes
    ----------
    template : str
        File from which job scripts are made; beside the machine file, and once that
        has been read, with its whole path.
    time : str
        Time limit of a job: ``HH:MM:SS``, ``D-HH:MM:SS`` or minutes.
    ranks_per_node : int
        At most so many ranks on one node; a job gets as few nodes as that allows.
    cores_per_rank : int or None
        None: as many as the machine's `threads_per_rank`.
    gpus_per_node : int
        0 for none.
    account, partition, qos, constraint : str or None
        Words of the site.
    exclusive : bool
        Whether no other job may run on the nodes.
    array : int
        So many identical jobs share the trials of one size.
    at_once : int or None
        At most so many of them run at a time; None: no such limit.
    restarts : int
        How often a job that stopped before its end is put back into the queue.
    modules : tuple of str
        Loaded in this order, after ``module purge``.
    preamble : tuple of str
        Lines of shell, run after that.
    options : tuple of str
        Further options of sbatch, such as ``--mem=0``.
    """

    template: Word
    time: TimeLimit
    ranks_per_node: Ranks
    cores_per_rank: Few | None = None
    gpus_per_node: Index = 0
    account: Word | None = None
    partition: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    exclusive: bool = False
    array: Few = 1
    at_once: Few | None = None
    restarts: Index = 0
    modules: tuple[Word, ...] = ()
    preamble: tuple[ShellLine, ...] = ()
    options: tuple[Option, ...] = ()

    @property
    def seconds(self) -> int:
        """The time limit in seconds."""
        days, _, clock = self.time.rpartition("-")
        if ":" not in clock:
            return 60 * int(clock)
        hours, minutes, rest = map(int, clock.split(":"))
        return ((24 * int(days or 0) + hours) * 60 + minutes) * 60 + rest
