"""Counters of network devices, in made-up folders that look like the kernel's."""

import math

import pytest

from dsgd_bench.fabric.ledger import Ledger
from dsgd_bench.host import network_counters


@pytest.fixture
def system(tmp_path):
    class System:
        devices = tmp_path / "net"
        adapters = tmp_path / "infiniband"

        def device(self, name, sent, received, *, physical=False, kind=1):
            folder = self.devices / name
            (folder / "statistics").mkdir(parents=True)
            (folder / "statistics/tx_bytes").write_text(f"{sent}\n")
            (folder / "statistics/rx_bytes").write_text(f"{received}\n")
            (folder / "type").write_text(f"{kind}\n")
            if physical:
                (folder / "device").mkdir()

        def port(self, words_out, words_in):
            folder = self.adapters / "mlx5_0/ports/1/counters"
            folder.mkdir(parents=True)
            (folder / "port_xmit_data").write_text(f"{words_out}\n")
            (folder / "port_rcv_data").write_text(f"{words_in}\n")

        def read(self):
            return network_counters.read(self.devices, self.adapters)

    return System()


def test_all_devices_but_the_loopback_count(system):
    system.device("lo", 1000, 1000)
    system.device("eth0", 1, 2)
    system.device("eth1", 10, 20)
    assert system.read() == (11, 22)


def test_bridges_over_physical_devices_do_not_count_again(system):
    system.device("eth0", 5, 7, physical=True)
    system.device("br0", 5, 7)
    (system.devices / "bonding_masters").write_text("")
    assert system.read() == (5, 7)


def test_infiniband_ports_count_words_and_their_ip_device_not_at_all(system):
    system.device("eth0", 1, 2, physical=True)
    system.device("ib0", 100, 100, physical=True, kind=32)
    assert system.read() == (101, 102)
    system.port(1000, 2000)
    assert system.read() == (4001, 8002)


def test_what_the_system_does_not_tell_is_nan(system):
    assert all(map(math.isnan, system.read()))
    system.device("eth0", 1, 2)
    (system.devices / "eth0/statistics/tx_bytes").unlink()
    sent, received = system.read()
    assert math.isnan(sent)
    assert received == 2


def test_a_ledger_tells_what_devices_moved_since_the_clock_started():
    said = iter([(100.0, 200.0), (160.0, 230.0)])
    ledger = Ledger(lambda: 0.0, lambda: next(said))
    ledger.open()
    ledger.traffic.sent(40)
    ledger.close_step(loss=0.0, samples=1)
    ledger.traffic.sent(15)
    ledger.traffic.received(5)
    assert ledger.drained() == {
        "drain_bytes_out": 15,
        "drain_bytes_in": 5,
        "link_bytes_out": 60.0,
        "link_bytes_in": 30.0,
    }


def test_a_run_that_goes_on_after_a_stop_does_not_know_its_links():
    ledger = Ledger(lambda: 0.0, lambda: (1.0, 1.0))
    ledger.open(step=3, elapsed=1.0)
    assert math.isnan(ledger.drained()["link_bytes_out"])
