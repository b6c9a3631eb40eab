"""The two worlds of the contracts: ranks in virtual time, or the ranks of MPI.

A test that takes `world` (and `size`, if the number of ranks matters) is run without
MPI on the virtual fabric for every number in `SIZES`. Under ``mpiexec`` with
``--with-mpi`` the same test runs on one rank and on all; what needs no MPI is then left
out, so that not every rank repeats it.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import pytest
from threadpoolctl import threadpool_limits

from dsgd_bench.errors import DsgdError
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import Network, World

SIZES = (1, 2, 3, 4, 5, 8)
"""Numbers of ranks in virtual time: small ones and powers of two, and neither."""

ALL = 0
"""As many ranks as were launched."""

NAP = 1e-4

DEVICE = "DSGD_BENCH_TEST_DEVICE"
"""Environment variable: where models of the contracts lie, and how they reach others,
such as ``stand-in:ipc`` or ``cuda:staged``; by default on the host."""

Work = Callable[[Fabric], Any]


class Ranks(Protocol):
    """What `world` is."""

    kind: str

    @property
    def most(self) -> int:
        """The largest number of ranks."""

    def some(self, cases: list[Any]) -> list[Any]:
        """Return those of many cases that are worth a launch of ranks here.

        All in virtual time. On MPI, where what differs between them (the graphs, say)
        is computed and not exchanged, the first, the middle and the last.
        """

    def together(
        self, size: int, work: Work, *, seed: int = 0, **network: Any
    ) -> list[Any]:
        """Run ``work(fabric)`` on `size` ranks; return every rank's result, by rank.

        On MPI all ranks get all results, those that had no work too, so that all of
        them fail together; `seed` and `network` mean something in virtual time only.
        """


class VirtualRanks:
    kind = "virtual"
    most = max(SIZES)

    def some(self, cases: list[Any]) -> list[Any]:
        return cases

    def together(
        self, size: int, work: Work, *, seed: int = 0, **network: Any
    ) -> list[Any]:
        return World(size, Network(**network), seed).run(work)


class MpiRanks:
    kind = "mpi"

    @property
    def most(self) -> int:
        from mpi4py import MPI

        return int(MPI.COMM_WORLD.size)

    def some(self, cases: list[Any]) -> list[Any]:
        chosen = sorted({0, len(cases) // 2, len(cases) - 1})
        return [cases[index] for index in chosen]

    def together(
        self, size: int, work: Work, *, seed: int = 0, **network: Any
    ) -> list[Any]:
        from mpi4py import MPI

        everybody = MPI.COMM_WORLD
        takes_part = everybody.rank < size
        group = everybody.Split(0 if takes_part else 1)
        results = None
        if takes_part:
            results = self._work(group, work)
        request = everybody.Ibarrier()
        while not request.Test():  # politely: the ranks share cores
            time.sleep(NAP)
        group.Free()
        return everybody.bcast(results)

    def _work(self, group: Any, work: Work) -> list[Any]:
        from dsgd_bench.fabric.mpi.fabric import MpiFabric

        try:
            fabric = MpiFabric(group)
            results = fabric.gather(work(on_device(fabric)))
            fabric.close()
        except BaseException:  # the other ranks would wait for this one
            traceback.print_exc(file=sys.__stderr__)
            group.Abort(1)
            raise
        return results


def on_device(fabric: Fabric) -> Any:
    """Return `fabric`, on the GPU that the environment names, or the stand-in."""
    way = os.environ.get(DEVICE)
    if not way:
        return fabric
    device, _, transport = way.partition(":")
    if device == "stand-in":
        import stand_in_gpu

        stand_in_gpu.install()
        gpu: Any = stand_in_gpu.Gpu()
    else:
        from dsgd_bench import arrays

        gpu = arrays.device(device, fabric.rank)
    from dsgd_bench.fabric.gpu.fabric import on_gpus

    return on_gpus(fabric, gpu, cast(Any, transport))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "world" not in metafunc.fixturenames:
        return
    with_mpi = metafunc.config.getoption("--with-mpi", default=False)
    marks = [pytest.mark.mpi] if with_mpi else []
    world = MpiRanks() if with_mpi else VirtualRanks()
    if "size" not in metafunc.fixturenames:
        metafunc.parametrize("world", [pytest.param(world, marks=marks, id=world.kind)])
        return
    sizes = (1, ALL) if with_mpi else SIZES
    cases = [
        pytest.param(world, size, marks=marks, id=f"{world.kind}-{size or 'all'}")
        for size in sizes
    ]
    metafunc.parametrize(("world", "size"), cases, indirect=["size"])


@pytest.fixture
def size(request: pytest.FixtureRequest) -> int:
    if request.param != ALL:
        return int(request.param)
    from mpi4py import MPI

    return int(MPI.COMM_WORLD.size)


@pytest.fixture(scope="session")
def device() -> Any:
    """The GPU; without one, or without CuPy, the test is skipped and says why."""
    try:
        from dsgd_bench.arrays import cuda
    except DsgdError as error:
        pytest.skip(str(error))
    if not cuda.cupy.cuda.is_available():
        pytest.skip("there is no CUDA device, or no driver for it")
    return cuda.Gpu(0)


@pytest.fixture(autouse=True, scope="session")
def one_thread_for_products() -> Iterator[None]:
    """Let tests that run side by side not wait for each other's threads.

    With a thread per core in each of them, a gradient of ResNet-20 took ten times as
    much of a processor, and on a loaded machine minutes. Not by a variable: commands
    and ranks that tests start would inherit it.
    """
    with threadpool_limits(1, "blas"):
        yield


@pytest.fixture(scope="module")
def any_trace_is_valid() -> Iterator[None]:
    """Switch verification off, for modules whose traces are the toys of `synthetic`.

    A toy has no clock errors, for instance, and its last step is not cut off where
    the budget ends. What else is said of it is what such a module is about.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dsgd_bench.analysis.verify.CHECKS", ())
        yield


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    if not config.getoption("--with-mpi", default=False):
        return
    items[:] = [item for item in items if item.get_closest_marker("mpi")]
