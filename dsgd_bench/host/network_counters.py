"""What the network devices of this host say they have sent and received.

A check on the books from outside: what a trace claims was sent must have crossed some
device, unless ranks share a host or the claim is wrong. Linux only, read from ``/sys``.
"""

import math
from collections.abc import Iterator
from pathlib import Path

DEVICES = Path("/sys/class/net")
ADAPTERS = Path("/sys/class/infiniband")

LOOPBACK = "lo"
INFINIBAND = "32"
"""The kernel's number for InfiniBand in a device's ``type`` (ARPHRD_INFINIBAND)."""

LANES = 4
"""An InfiniBand port counts words of four bytes, one per lane of a 4x link."""


def read(devices: Path = DEVICES, adapters: Path = ADAPTERS) -> tuple[float, float]:
    """Return the bytes that this host has sent and received since it was started.

    All ranks of one host read the same counters. Counted are the physical devices, or,
    where there is none (virtual machines, containers, emulated hosts), all but the
    loopback: bridges and bonds would count their members' bytes again. To these come
    the ports of InfiniBand adapters, whose transfers never pass the kernel; devices for
    IP over such a port are left out, as its own counters include them.

    Parameters
    ----------
    devices, adapters : Path
        Where the kernel shows network devices and InfiniBand adapters.

    Returns
    -------
    tuple of float
        Bytes out and in; NaN where the system does not tell.
    """
    ports = sorted(adapters.glob("*/ports/*/counters"))
    found = [*_devices(devices, skip_infiniband=bool(ports))]
    if not found and not ports:
        return math.nan, math.nan
    sent = sum(_number(path / "statistics/tx_bytes") for path in found)
    received = sum(_number(path / "statistics/rx_bytes") for path in found)
    sent += LANES * sum(_number(port / "port_xmit_data") for port in ports)
    received += LANES * sum(_number(port / "port_rcv_data") for port in ports)
    return sent, received


def _devices(devices: Path, *, skip_infiniband: bool) -> Iterator[Path]:
    """Yield the devices to be counted."""
    found = [path for path in sorted(devices.glob("*")) if path.name != LOOPBACK]
    physical = [path for path in found if (path / "device").exists()]
    for path in physical or found:
        if not (path / "statistics").exists():
            continue  # bonding_masters and the like are files
        if not (skip_infiniband and _text(path / "type") == INFINIBAND):
            yield path


def _number(path: Path) -> float:
    """Return the counter in a file; NaN if it cannot be read."""
    text = _text(path)
    return float(text) if text.isdigit() else math.nan


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
