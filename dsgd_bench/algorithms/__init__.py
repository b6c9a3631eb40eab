"""The table of algorithms, written by hand; each file is one of them."""

from dsgd_bench.algorithms.acid import acid
from dsgd_bench.algorithms.adpsgd import adpsgd
from dsgd_bench.algorithms.adpsgd_delta import adpsgd_delta
from dsgd_bench.algorithms.adpsgd_overlapped import adpsgd_overlapped
from dsgd_bench.algorithms.adpsgd_waitfree import adpsgd_waitfree
from dsgd_bench.algorithms.allreduce import allreduce
from dsgd_bench.algorithms.allreduce_bucketed import allreduce_bucketed
from dsgd_bench.algorithms.asgd import asgd
from dsgd_bench.algorithms.base import Algorithm
from dsgd_bench.algorithms.dasgd import dasgd
from dsgd_bench.algorithms.dcasgd import dcasgd
from dsgd_bench.algorithms.dpsgd import dpsgd
from dsgd_bench.algorithms.dpsgd_atc import dpsgd_atc
from dsgd_bench.algorithms.eamsgd import eamsgd
from dsgd_bench.algorithms.easgd import easgd
from dsgd_bench.algorithms.gossip_pga import gossip_pga
from dsgd_bench.algorithms.localsgd import localsgd
from dsgd_bench.algorithms.odsgd import odsgd
from dsgd_bench.algorithms.osgp import osgp
from dsgd_bench.algorithms.postlocal import postlocal
from dsgd_bench.algorithms.sgp import sgp
from dsgd_bench.algorithms.ssgd import ssgd
from dsgd_bench.algorithms.swift import swift

ALGORITHMS: dict[str, Algorithm] = {
    entry.name: entry
    for entry in (
        allreduce,
        allreduce_bucketed,
        dpsgd,
        dpsgd_atc,
        gossip_pga,
        localsgd,
        postlocal,
        ssgd,
        asgd,
        dcasgd,
        easgd,
        eamsgd,
        odsgd,
        sgp,
        osgp,
        adpsgd,
        adpsgd_overlapped,
        adpsgd_waitfree,
        adpsgd_delta,
        swift,
        acid,
        dasgd,
    )
}
