"""A short probe on real ranks: everything is measured, and nothing is impossible."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from mpi4py import MPI

from dsgd_bench.errors import ConfigError
from dsgd_bench.fabric.mpi.bare import created
from dsgd_bench.fabric.mpi.fabric import MpiFabric
from dsgd_bench.fabric.mpi.window import MpiVectorWindow
from dsgd_bench.probe import Probe, ProbeOptions, gradients, groups
from dsgd_bench.probe.operations import AMONG_MANY, BETWEEN_TWO, VECTORS, WORDS
from dsgd_bench.spec import machine_profile

pytestmark = [pytest.mark.mpi(min_size=2), pytest.mark.timeout(100)]

SIZES = (8, 4096, 262_144)


@pytest.fixture
def fabric() -> Iterator[MpiFabric]:
    found = MpiFabric(MPI.COMM_WORLD)
    yield found
    found.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder of this rank's own; those of pytest are cleaned by all at once."""
    with TemporaryDirectory() as path:
        yield Path(path)


def options(output: Path) -> ProbeOptions:
    return ProbeOptions(
        SIZES, iterations=5, warm_up=1, percentiles=(), full=False, output=output
    )


def test_a_probe_measures_everything_and_its_profile_is_a_network(
    fabric, folder, monkeypatch
):
    monkeypatch.setattr(gradients, "TIMED", ("quadratic", "softmax"))
    stages: list[str] = []

    def begins(name):
        stages.append(name)
        return nullcontext()

    probe = Probe(fabric, options(folder / "profile.json"))
    found, series = probe.run(begins)
    lines = probe.report(found, series)
    assert len(stages) == len(set(stages)) == probe.stages
    if fabric.rank:
        return

    assert (found.ranks, found.nodes, found.ranks_per_node) == (
        fabric.size,
        1,
        fabric.size,
    )
    (pair,) = found.pairs.values()
    assert set(pair) == set(BETWEEN_TWO)
    assert list(found.allreduce) == list(found.neighborhood) == groups(fabric.size)
    for one in (*pair.values(), *found.allreduce.values()):
        assert min(one.medians) > 0
        assert min(one.samples) >= 1
        assert np.all(np.less_equal(one.p10, one.medians))
        assert np.all(np.less_equal(one.medians, one.p90))
        assert one.overhead > 0
        assert one.seconds >= 0
        assert one.residual_median <= one.residual_max
    for name in WORDS:
        assert pair[name].sizes == (8,)
    for name in (*VECTORS, "send_receive", *AMONG_MANY):
        assert pair[name].sizes == SIZES
        assert np.isfinite(pair[name].rate)
        assert pair[name].rate >= 0  # 0 where noise hides the slope
    assert set(found.gradients) == {"quadratic", "softmax"}
    assert all(time.seconds > 0 for time in found.gradients.values())
    assert 0 < found.timer < 1e-4
    assert found.provenance["mpi_library"]

    assert lines[0].startswith("# dsgd-bench probe")
    assert any("no far ones here" in line for line in lines)
    assert any(line.startswith("262144 ") for line in lines)

    found.write(folder / "profile.json")
    read = machine_profile.read(folder / "profile.json")
    assert read.pairs == found.pairs
    assert read.allreduce == found.allreduce
    spec = read.network(fabric.size)
    assert (spec.name, spec.ranks_per_node) == ("profile", fabric.size)
    assert set(spec.near.operations) == {"get", "put", "accumulate", "fetch", "word"}


def test_on_one_node_windows_as_ours_need_no_progress(fabric, folder):
    probe = Probe(fabric, options(folder / "profile.json"))
    found = probe._answers(lambda _: nullcontext())
    assert set(found) == ({"near"} if fabric.rank in (0, 1) else set())
    for flavors in found.values():
        assert set(flavors) == {"allocate", "create"}
        for operations in flavors.values():
            assert set(operations) == {*VECTORS, *WORDS}
        assert {answer.verdict for answer in flavors["allocate"].values()} == {
            "passive"
        }


def test_windows_of_memory_of_our_own_do_the_same(fabric):
    """Otherwise their times would say nothing of how a window is made."""
    window = MpiVectorWindow(fabric, 4, np.dtype(np.float32), created)
    target = (fabric.rank + 1) % fabric.size
    window.accumulate(np.full(4, 2.0, np.float32), target, slice(0, 4))
    window.flush(target)
    fabric.barrier()
    window.sync()
    np.testing.assert_array_equal(window.memory, 2.0)
    fabric.barrier()
    window.free()


@pytest.mark.parametrize("output", ["none/profile.json", "."])
def test_where_nothing_can_be_written_nothing_is_measured(fabric, folder, output):
    with pytest.raises(ConfigError, match="cannot be written: choose another --output"):
        Probe(fabric, options(folder / output))


def test_vectors_that_do_not_fit_are_refused_with_the_figure(fabric, folder):
    too_large = ProbeOptions((8, 2**50), 5, 1, (), full=False, output=folder / "p")
    with pytest.raises(ConfigError, match=r"ranks on a node need [\d.e+]+ GiB"):
        Probe(fabric, too_large)


def test_a_part_is_of_the_ranks_named(fabric):
    last = fabric.size - 1
    part = fabric.part([0, last])
    assert (part is not None) == (fabric.rank in (0, last))
    if part is not None:
        assert part.size == 2
        assert part.gather(fabric.rank) == [0, last]
        part.close()
