"""What sbatch said: that it took the job, that it refused it, or neither for sure.

Sites print banners around the number, wrappers print their own sentence, and sbatch may
fail after the controller has the job. Only what can mean nothing else is believed; all
the rest is unclear, and the job is looked for by its name.
"""

import re
import subprocess
from dataclasses import dataclass

from dsgd_bench.batch.slurm.calls import one_line

NUMBER = re.compile(r"^[ \t]*([1-9][0-9]{0,9})(?:;([\w.-]+))?[ \t\r]*$", re.M | re.A)
"""A line of ``sbatch --parsable``: the number, and the cluster if one was named."""

SENTENCE = re.compile(
    r"Submitted batch job ([1-9][0-9]{0,9})\b(?: on cluster ([\w.-]*\w))?", re.A
)
"""What sbatch says without that option, as wrappers do on their own account."""

REFUSAL = re.compile(
    r"\berror\b|unrecognized option|invalid|denied|not (allowed|permitted)", re.I
)
"""Words without which a failure is no refusal."""

LOST = re.compile(
    r"timed? ?-?out|zero bytes|unexpected message|(send|receive|shutdown) failure"
    r"|connection (reset|closed|aborted|timed)|broken pipe|temporarily|interrupted",
    re.I,
)
"""Words of a failure after which the controller may have the job all the same."""


@dataclass(frozen=True)
class Answer:
    """What is known of a job after sbatch was called.

    Attributes
    ----------
    job : str
        Its number, if it was surely accepted; of an array, that of the whole.
    cluster : str
        The cluster that has it, if sbatch named one.
    refused : str
        In sbatch's words, why it was surely refused.
    unclear : str
        Otherwise what is odd about the answer.
    """

    job: str = ""
    cluster: str = ""
    refused: str = ""
    unclear: str = ""


def read(said: subprocess.CompletedProcess[str]) -> Answer:
    """Return what sbatch's exit status and words mean."""
    everything = f"{said.stdout}\n{said.stderr}"
    found = set(SENTENCE.findall(everything)) or set(NUMBER.findall(said.stdout))
    numbers = sorted({job for job, _ in found})
    if said.returncode == 0 and len(numbers) == 1:
        return Answer(numbers[0], cluster=max(cluster for _, cluster in found))
    words = one_line(said.stderr) or one_line(said.stdout)
    if (
        said.returncode > 0
        and not numbers
        and REFUSAL.search(everything)
        and not LOST.search(everything)
    ):
        return Answer(refused=words)
    ended = f"sbatch ended with status {said.returncode} and said {words or 'nothing'}"
    told = f", and the number {' or '.join(numbers)}" if numbers else ""
    return Answer(unclear=ended + told)
