"""What the links between hosts can carry: rates from the machine file, and traffic.

A host has one link, as fast out as in, and both ways at once. Ranks of one host share
it, and need none among themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.analysis.labels import fact
from dsgd_bench.host import identity
from dsgd_bench.spec.strict import exact, nearly

Floats = NDArray[np.float64]

BITS = 8
PREFIXES = ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s"))


@dataclass(frozen=True)
class Links:
    """The links of a run.

    Attributes
    ----------
    hosts : tuple of str
        The host of every rank.
    rate : float
        Bit/s of every host's link, each way.
    others : mapping of str to float
        Bit/s of the hosts whose links differ, by the names that the user wrote; see
        `dsgd_bench.host.identity.same` for which hosts those mean.
    """

    hosts: tuple[str, ...]
    rate: float
    others: Mapping[str, float]

    @classmethod
    def of(cls, provenance: Mapping[str, Any]) -> "Links | None":
        """Return the links that a trace tells of; None where it does not."""
        links, names = fact(provenance, "links"), fact(provenance, "hosts")
        if not links or not links.get("rate") or not isinstance(names, list | tuple):
            return None
        return cls(tuple(map(str, names)), links["rate"], dict(links["hosts"]))

    @property
    def label(self) -> str:
        """The rates in words: "200 Mbit/s, host3 20 Mbit/s"."""
        words = [
            f"{host} {_rate(rate)}"
            for host in sorted(set(self.hosts))
            if (rate := self._other(host)) is not None
        ]
        return ", ".join([_rate(self.rate), *words])

    @property
    def unknown(self) -> list[str]:
        """The names that the user wrote and that mean no host of the run."""
        return identity.unknown(self.others, self.hosts)

    def _other(self, host: str) -> float | None:
        """Return what the user said of one host; the fullest name counts."""
        meant = [name for name in self.others if identity.same(name, host)]
        meant.sort(key=len)
        return self.others[meant[-1]] if meant else None

    @property
    def uneven(self) -> bool:
        """Whether the hosts of the ranks have links of different rates."""
        return len(set(self._rates.tolist())) > 1

    @property
    def _rates(self) -> Floats:
        """Byte/s of every rank's host."""
        found = {host: self._other(host) for host in set(self.hosts)}
        bits = [
            self.rate if found[host] is None else found[host] for host in self.hosts
        ]
        return np.array(bits, np.float64) / BITS

    @property
    def _together(self) -> NDArray[np.bool_]:
        """Which pairs of ranks are on one host, shape (ranks, ranks)."""
        names = np.array(self.hosts)
        return np.asarray(names[:, None] == names[None, :])

    def busy(self, traffic: Floats) -> Floats:
        """Return how long every rank's link needs for what all send each other.

        Parameters
        ----------
        traffic : array of shape (ranks, ranks)
            Bytes, from the rank of the row to that of the column.

        Returns
        -------
        array of shape (ranks,)
            Seconds, of the direction that carries more.
        """
        together = self._together
        crossing = np.where(together, 0.0, traffic)
        out = together @ crossing.sum(axis=1)  # of all ranks of the host
        into = together @ crossing.sum(axis=0)
        return np.asarray(np.maximum(out, into) / self._rates)

    def apart(self, nbytes: float) -> Floats:
        """Return the seconds of a message between each two ranks: the slower link's."""
        rates = self._rates
        seconds = nbytes / np.minimum(rates[:, None], rates[None, :])
        return np.where(self._together, 0.0, seconds)


def _rate(bits: float) -> str:
    """Return a rate in words: "200 Mbit/s"."""
    for size, name in PREFIXES:
        if bits >= size:
            return f"{nearly(bits / size)} {name}"
    return f"{exact(bits)} bit/s"
