"""Where the kernels run: compiled for the host, in two orders, or on a GPU."""

from collections.abc import Callable
from typing import Any

import numpy as np
import on_host
import pytest

from dsgd_bench import arrays
from dsgd_bench.arrays import layers, updates
from dsgd_bench.arrays.kernels import Kernels

Operation = Callable[..., None]


class OnHost:
    """The public functions, sent to kernels that were compiled for the host."""

    def __init__(self, kernels: Kernels, patch: pytest.MonkeyPatch) -> None:
        self.kernels, self._patch = kernels, patch

    def put(self, x: np.ndarray) -> np.ndarray:
        return x.copy()

    def get(self, x: Any) -> np.ndarray:
        return x

    def run(self, operate: Operation, *vectors: Any) -> None:
        with self._patch.context() as patch:
            for module in (arrays, updates, layers):
                patch.setattr(module, "on_gpu", lambda x: True)
                patch.setattr(module, "gpu", lambda: self.kernels)
            operate(*vectors)


class OnGpu:
    """The public functions as they are."""

    def __init__(self, device: arrays.Host) -> None:
        self._device, self.kernels = device, arrays.gpu()

    def put(self, x: np.ndarray) -> Any:
        return self._device.put(x)

    def get(self, x: Any) -> np.ndarray:
        return arrays.host(x)

    def run(self, operate: Operation, *vectors: Any) -> None:
        operate(*vectors)


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    if on_host.COMPILER is None:
        pytest.skip("there is no g++ to compile the kernels for the host")
    return on_host.build(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(
    params=["ascending", "descending", pytest.param("gpu", marks=pytest.mark.gpu)]
)
def place(request, monkeypatch):
    if request.param == "gpu":
        return OnGpu(request.getfixturevalue("device"))
    library = request.getfixturevalue("library")
    ascending = request.param == "ascending"
    return OnHost(on_host.kernels(library, ascending), monkeypatch)
