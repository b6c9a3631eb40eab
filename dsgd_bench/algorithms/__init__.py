"""The table of algorithms, written by hand; each file is one of them."""

from dsgd_bench.algorithms.adpsgd import adpsgd
from dsgd_bench.algorithms.adpsgd_delta import adpsgd_delta
from dsgd_bench.algorithms.adpsgd_overlapped import adpsgd_overlapped
from dsgd_bench.algorithms.adpsgd_waitfree import adpsgd_waitfree
from dsgd_bench.algorithms.allreduce import allreduce
from dsgd_bench.algorithms.base import Algorithm

ALGORITHMS: dict[str, Algorithm] = {
    entry.name: entry
    for entry in (
        allreduce,
        adpsgd,
        adpsgd_overlapped,
        adpsgd_waitfree,
        adpsgd_delta,
    )
}
