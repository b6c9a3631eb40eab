"""One rank as a process: what it checks first, and how it ends when something is wrong.

A rank never just raises: the others would wait for it forever. It says what happened,
in one sentence where the user can mend it and with a traceback where not, and ends the
whole job.
"""

import ctypes
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from dsgd_bench import (
    hosts,
    known_bugs,
    launch,
    processes,
    provenance,
    segments,
    stopping,
    surroundings,
)
from dsgd_bench.errors import ConfigError, DsgdError, LaunchError
from dsgd_bench.foreign import plain
from dsgd_bench.run import Run
from dsgd_bench.specs import Job, Machine
from dsgd_bench.watchdog import Watchdog

if TYPE_CHECKING:
    from dsgd_bench.fabric.mpi import MpiFabric

READY, ERROR, STOPPED = "READY", "ERROR", "STOPPED"
"""Files by which a trial's folder tells how the trial ended."""

FAILED = 1
REFUSED = 2
"""Exit statuses: something broke; the user asked for what cannot be."""

GRACE = 2.0
"""Seconds in which rank 0 says for all what the others would say too."""

PR_SET_PDEATHSIG, PR_SET_TIMERSLACK = 1, 29


def main(path: Path) -> int:
    """Run one rank of the job in the file `path`; return its exit status."""
    prepare_process()
    folder = path.parent
    try:
        job = Job.read(path)
        fabric = connect(job.trial.ranks)
    except DsgdError as error:
        refuse(folder, str(error))
        return REFUSED
    guarded(fabric, folder, lambda: run_trial(fabric, job, folder))
    fabric.close()
    return 0


def run_trial(fabric: "MpiFabric", job: Job, folder: Path) -> None:
    """Run this rank of one trial under the watchdog; rank 0 marks how it ended."""

    def end(sentence: str) -> None:
        refuse(folder, sentence)
        fabric.abort(FAILED)

    ledger, machine = fabric.ledger, job.machine
    signs: Callable[[], object] = lambda: (ledger.steps, fabric.beats)  # noqa: E731
    with (
        Watchdog(machine.watchdog, signs, end, f"rank {fabric.rank}"),
        stopping.Watch(machine.stop_margin) as watch,
    ):
        origin = fabric.describe()
        if fabric.rank == 0:
            origin |= provenance.collect() | {"libmpi_path": surroundings.libmpi()}
            check_links(machine, origin["hosts"])
            origin["links"] = msgspec.structs.asdict(machine.links)
            origin["known_bugs"] = warn_of_bugs(origin)
        run = Run(
            job.trial,
            folder,
            job.study,
            machine.progress,
            origin,
            watch if stopping.expected() else None,
            machine.when_stopped == "resume",
            machine.gpu,
        )
        finished = run(fabric)
        if fabric.rank == 0 and finished:
            (folder / READY).touch()
        elif fabric.rank == 0:
            then = "goes on" if run.resumes else "starts again"
            (folder / STOPPED).write_text(f"stopped on purpose: it {then} next time\n")
        fabric.barrier()


def check_links(machine: Machine, names: Sequence[str]) -> None:
    """Refuse names in ``[links]`` that mean no host of this trial or Slurm job.

    Parameters
    ----------
    machine : Machine
        The machine file.
    names : sequence of str
        The host of every rank.

    Raises
    ------
    ConfigError
        If there is such a name: the bounds of the report would be those of other links.
    """
    there = [*names, *hosts.in_list(os.environ.get("SLURM_JOB_NODELIST", ""))]
    if strange := hosts.unknown(machine.links.hosts, there):
        raise ConfigError(
            f"links.hosts of the machine file names {_listed(strange)}, and the ranks "
            f"of this trial run on {_listed(dict.fromkeys(names))}: name those (case "
            "does not matter, and host1 means host1.any.domain), or leave the name out"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(plain, names))


def warn_of_bugs(origin: dict[str, Any]) -> list[str]:
    """Print a line for every known bug that this job can meet; return them all."""
    found = known_bugs.on_these_ranks(origin, surroundings.libmpi())
    for sentence in found:
        print(f"dsgd-bench: known bug: {sentence}", file=sys.stderr, flush=True)
    return found


def start(
    machine: Machine, ranks: int, words: list[str], on_line: Callable[[str], None]
) -> int:
    """Start `ranks` ranks of this program with `words`; return the exit status.

    Parameters
    ----------
    machine : Machine
        Whose launcher is used.
    ranks : int
        How many.
    words : list of str
        A verb of the command line and its arguments.
    on_line : callable
        Called with every line that they print.

    Raises
    ------
    LaunchError
        If the launcher cannot be found.
    """
    python = sys.executable
    command = launch.starter(ranks, machine, python)
    command += [python, "-m", "mpi4py", "-m", "dsgd_bench", *words]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        environment = launch.environment(ranks, machine, python)
        return processes.run(command, environment, log, on_line)


def connect(ranks: int | None = None) -> "MpiFabric":
    """Meet the other ranks; `ranks` is how many there must be.

    Raises
    ------
    LaunchError
        If there are fewer: the launcher belongs to another MPI library than the one
        that was loaded, and started so many jobs of one rank each.
    """
    segments.begin()
    try:
        from dsgd_bench.fabric import mpi
    except (ImportError, RuntimeError) as error:
        raise LaunchError(
            f"no MPI library can be loaded ({error}): install one, for example "
            "`pip install mpich`, or load the site's module"
        ) from None
    fabric = mpi.world()
    segments.record()
    started = surroundings.started_ranks()
    wanted = ranks or started
    alone = any(count not in (None, fabric.size) for count in (wanted, started))
    if alone or (surroundings.started_rank() or 0) >= fabric.size:
        _refuse_to_be_alone(fabric, max(wanted or 0, started or 0, 2))
    return fabric


def _refuse_to_be_alone(fabric: "MpiFabric", wanted: int) -> NoReturn:
    """Say that fewer ranks see each other than should; only the first one speaks."""
    if surroundings.started_rank():
        raise SystemExit(REFUSED)
    library = surroundings.libmpi() or "the MPI library"
    family, _ = known_bugs.identify(fabric.library)
    raise LaunchError(surroundings.mismatch(fabric.size, wanted, library, family))


def guarded(fabric: "MpiFabric", folder: Path, work: Callable[[], None]) -> None:
    """Do `work`; if it fails on this rank, say why and end the whole job."""
    try:
        work()
    except DsgdError as error:
        refuse(folder, str(error))
        fabric.abort(FAILED)
    except Exception as error:  # noqa: BLE001 - the others would wait forever
        said = traceback.format_exception_only(error)[-1].strip()
        if note_error(folder, f"rank {fabric.rank} raised {said}"):
            print(f"rank {fabric.rank} raised:", file=sys.stderr)
            traceback.print_exc()
            sys.stderr.flush()
        fabric.abort(FAILED)


def end_all(fabric: "MpiFabric", error: Exception) -> None:
    """End a job in which this rank met `error` outside of a trial; rank 0 speaks first.

    The other ranks may have met the same error, or be waiting for this one.
    """
    if fabric.rank:
        time.sleep(GRACE)
    if isinstance(error, DsgdError):
        print(f"dsgd-bench: {error}", file=sys.stderr, flush=True)
    else:
        traceback.print_exception(error)
        sys.stderr.flush()
    fabric.abort(REFUSED if isinstance(error, DsgdError) else FAILED)


def refuse(folder: Path, sentence: str) -> None:
    """Say `sentence` once for all ranks."""
    if note_error(folder, sentence):
        print(f"dsgd-bench: {sentence}", file=sys.stderr, flush=True)


def note_error(folder: Path, sentence: str) -> bool:
    """Write the folder's ERROR file; tell whether this rank was the first to do so."""
    try:
        with (folder / ERROR).open("x") as file:
            file.write(sentence + "\n")
    except FileExistsError:
        return False
    except OSError:
        return True  # cannot be written: then at least it is printed
    return True


def prepare_process() -> None:
    """Die with the launcher, and sleep precisely; both are Linux's own and optional."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(PR_SET_TIMERSLACK, 1)
