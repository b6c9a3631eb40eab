"""One rank as a process: what it checks first, and how it ends when something is wrong.

A rank never just raises: the others would wait for it forever. It says what happened,
in one sentence where the user can mend it and with a traceback where not, and ends the
whole job.
"""

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import msgspec

from dsgd_bench.errors import DsgdError, LaunchError
from dsgd_bench.host import (
    environment,
    mpi_bugs,
    processes,
    provenance,
    shared_memory,
)
from dsgd_bench.io import files, printing
from dsgd_bench.io.trial_folder import TrialFolder
from dsgd_bench.spec.job import Job
from dsgd_bench.spec.machine import Machine
from dsgd_bench.study import launch, stopping
from dsgd_bench.study.rank_checks import check_links
from dsgd_bench.study.watchdog import STARTING, Listener, Watchdog, end_within
from dsgd_bench.trial.run import Run

if TYPE_CHECKING:
    from dsgd_bench.fabric.mpi.fabric import MpiFabric

FAILED = 1
REFUSED = 2
"""Exit statuses: something broke; the user asked for what cannot be."""

SAYS, BUG = "dsgd-bench: ", "known bug: "
"""How lines of ours begin, and after that those that end no job."""

GRACE = 2.0
"""Seconds in which rank 0 says for all what the others would say too."""

PATIENCE = Machine().watchdog
"""Seconds that ranks have outside of trials to meet, to answer and to part."""

UNHEARD = 600.0
"""Seconds between two lines of ranks that show no other sign of life."""

BEAT = "DSGD_BENCH_BEAT"
"""Environment variable: file that rank 0 touches while it lives, where it sees it."""

PR_SET_PDEATHSIG, PR_SET_TIMERSLACK = 1, 29


def main(path: Path) -> int:
    """Run one rank of the job in the file `path`; return its exit status."""
    prepare_process()
    folder = TrialFolder(path.parent)
    try:
        job = Job.read(path)
        seconds = job.machine.watchdog
        with _starting(seconds, folder, beat=path) as watchdog:
            fabric = connect(job.trial.ranks)
            watchdog.beat = None if fabric.rank else path
            watchdog.last_resort = False  # `run` listens
            watchdog.follow(seconds, *_watched(fabric, folder))
            guarded(fabric, folder, lambda: run_trial(fabric, job, folder))
            watchdog.last_resort = True
            watchdog.follow(max(seconds, STARTING), *_watched(fabric, folder))
            fabric.leave()
    except DsgdError as error:
        refuse(folder, str(error))
        return REFUSED
    end_within(max(seconds, STARTING))
    return 0


Watched: TypeAlias = tuple[Callable[[], object], Callable[[str], None], str]
"""What a watchdog follows: the sign of life, what ends the job, and a name."""


def _watched(fabric: "MpiFabric", folder: TrialFolder | None = None) -> Watched:
    """Return what is watched of a rank that has met the others."""

    def end(sentence: str) -> None:
        _say(folder, sentence)
        fabric.abort(FAILED)

    ledger = fabric.ledger
    return lambda: (ledger.steps, fabric.beats), end, f"rank {fabric.rank}"


@contextmanager
def _starting(
    seconds: float, folder: TrialFolder | None = None, *, beat: Path | None = None
) -> Iterator[Watchdog]:
    """Watch this process from before it meets the others.

    The limit is generous to the start; `beat` is touched by what will be rank 0.
    """

    def end(sentence: str) -> None:
        _say(folder, sentence)
        os._exit(FAILED)  # what hangs in MPI_Init could not end the job either

    number = environment.started_rank()
    name = f"rank {number or 0}, which was to meet the others,"
    limit = max(seconds, STARTING)
    with Watchdog(
        limit, lambda: None, end, name, beat=None if number else beat
    ) as watchdog:
        yield watchdog


def _say(folder: TrialFolder | None, sentence: str) -> None:
    """Say why the job is ended, in the trial's folder if that is not finished."""
    if folder is not None and not folder.ready.exists():
        refuse(folder, sentence)
    else:
        printing.complain(f"dsgd-bench: {sentence}")


def meet(ranks: int | None = None) -> "MpiFabric":
    """Meet the other ranks outside of a trial, as `connect` does, under a watchdog."""
    with _starting(PATIENCE, beat=_beat()):
        return connect(ranks)


def busy(fabric: "MpiFabric") -> Watchdog:
    """Return a watchdog for a block in which a rank may work for as long as it likes.

    It only gives the process that started the ranks its signs of life.
    """
    _, end, name = _watched(fabric)
    beat = None if fabric.rank else _beat()
    return Watchdog(PATIENCE, time.monotonic, end, name, beat=beat)


def answering(fabric: "MpiFabric", seconds: float = PATIENCE) -> Watchdog:
    """Return a watchdog for a block in which ranks never wait for each other for long.

    It ends the job if they do.
    """
    beat = None if fabric.rank else _beat()
    return Watchdog(max(seconds, STARTING), *_watched(fabric), beat=beat)


@contextmanager
def in_trial(
    watchdog: Watchdog,
    fabric: "MpiFabric",
    part: "MpiFabric | None",
    folder: TrialFolder,
    seconds: float,
) -> Iterator[None]:
    """Let a watchdog follow a trial of some ranks of this job in a block, all of them.

    Those who have no part in it wait for as long as it lasts.
    """
    if part is None:
        _, end, name = _watched(fabric)
        watchdog.follow(PATIENCE, time.monotonic, end, name)
    else:
        watchdog.follow(seconds, *_watched(part, folder))
    yield
    watchdog.follow(max(seconds, STARTING), *_watched(fabric))


def leave(fabric: "MpiFabric") -> None:
    """Part from the other ranks at the end of the process, under a watchdog."""
    with answering(fabric):
        fabric.leave()
    end_within(PATIENCE)


def _beat() -> Path | None:
    """Return the file that `start` watches."""
    name = os.environ.get(BEAT)
    return Path(name) if name else None


def run_trial(fabric: "MpiFabric", job: Job, folder: TrialFolder) -> None:
    """Run this rank of one trial; rank 0 marks how it ended."""
    machine = job.machine
    with stopping.Watch(machine.stop_margin) as watch:
        origin = fabric.describe()
        if fabric.rank == 0:
            origin |= provenance.collect() | {"libmpi_path": environment.libmpi()}
            if job.largest:
                check_links(machine, origin["hosts"])
            origin["links"] = msgspec.structs.asdict(machine.links)
            origin["known_bugs"] = warn_of_bugs(origin)
        run = Run(
            job.trial,
            folder.path,
            job.study,
            machine.progress,
            origin,
            watch if stopping.expected() else None,
            machine.when_stopped == "resume",
            machine.gpu,
        )
        finished = run(fabric)
        if fabric.rank == 0 and finished:
            folder.ready.touch()
        elif fabric.rank == 0:
            then = "goes on" if run.resumes else "starts again"
            said = f"stopped on purpose: it {then} next time\n"
            files.write_text(folder.stopped, said)
        fabric.barrier()


def warn_of_bugs(origin: dict[str, Any]) -> list[str]:
    """Print a line for every known bug that this job can meet; return them all."""
    found = mpi_bugs.on_these_ranks(origin, environment.libmpi())
    for sentence in found:
        printing.complain(f"{SAYS}{BUG}{sentence}")
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
        If the launcher cannot be found, no temporary folder be written, or nothing
        has given a sign of life for long.
    """
    python = sys.executable
    command = launch.starter(ranks, machine, python)
    command += launch.program(python, *words)
    with environment.scratch_folder() as folder:
        log, beat = folder / "log", folder / "beat"
        beat.touch()
        variables = launch.variables(ranks, machine, python) | {BEAT: str(beat)}
        listener = Listener(machine.watchdog, beat, log, unheard=UNHEARD)
        return processes.run(command, variables, log, on_line, on_glance=listener)


def connect(ranks: int | None = None) -> "MpiFabric":
    """Meet the other ranks; `ranks` is how many there must be.

    Raises
    ------
    LaunchError
        If there are fewer: the launcher belongs to another MPI library than the one
        that was loaded, and started so many jobs of one rank each.
    """
    shared_memory.begin()
    try:
        from dsgd_bench.fabric.mpi.fabric import world
    except (ImportError, RuntimeError) as error:
        raise LaunchError(
            f"no MPI library can be loaded ({error}): install one, for example "
            "`pip install mpich`, or load the site's module"
        ) from None
    fabric = world()
    shared_memory.record()
    started = environment.started_ranks()
    wanted = ranks or started
    alone = any(count not in (None, fabric.size) for count in (wanted, started))
    if alone or (environment.started_rank() or 0) >= fabric.size:
        _refuse_to_be_alone(fabric, max(wanted or 0, started or 0, 2))
    return fabric


def _refuse_to_be_alone(fabric: "MpiFabric", wanted: int) -> NoReturn:
    """Say that fewer ranks see each other than should; only the first one speaks."""
    if environment.started_rank():
        raise SystemExit(REFUSED)
    library = environment.libmpi() or "the MPI library"
    family, _ = mpi_bugs.identify(fabric.library)
    raise LaunchError(environment.mismatch(fabric.size, wanted, library, family))


def guarded(fabric: "MpiFabric", folder: TrialFolder, work: Callable[[], None]) -> None:
    """Do `work`; if it fails on this rank, say why and end the whole job."""
    try:
        work()
    except DsgdError as error:
        refuse(folder, str(error))
        fabric.abort(FAILED)
    except Exception as error:  # noqa: BLE001 - the others would wait forever
        full = files.no_room(error)
        said = full or f"raised {traceback.format_exception_only(error)[-1].strip()}"
        if refuse(folder, f"rank {fabric.rank} {said}") and not full:
            printing.stacks(error)
        fabric.abort(FAILED)


def end_all(fabric: "MpiFabric", error: Exception) -> None:
    """End a job in which this rank met `error` outside of a trial; rank 0 speaks first.

    The other ranks may have met the same error, or be waiting for this one.
    """
    if fabric.rank:
        time.sleep(GRACE)
    if isinstance(error, DsgdError):
        printing.complain(f"dsgd-bench: {error}")
    else:
        printing.stacks(error)
    fabric.abort(REFUSED if isinstance(error, DsgdError) else FAILED)


def refuse(folder: TrialFolder, sentence: str) -> bool:
    """Say `sentence` once for all ranks; tell whether this rank was the first to."""
    first = folder.fail(sentence)
    if first:
        printing.complain(f"{SAYS}{sentence}")
    return first


def sentence(line: str) -> str:
    """Return what a rank says in a line of its output, if that ends its job."""
    _, said, words = line.partition(SAYS)
    return words if said and not words.startswith(BUG) else ""


def prepare_process() -> None:
    """Die with the launcher and of Ctrl-C, and sleep precisely, as far as Linux helps.

    As an exception, Ctrl-C would come anywhere, perhaps within a callback of MPI, and
    end in a traceback; the launcher notices a rank that has died, and ends the others.
    """
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(PR_SET_TIMERSLACK, 1)
