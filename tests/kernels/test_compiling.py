"""The kernels compile for every generation of GPUs that there are in use."""

import nvrtc
import on_host
import pytest

from dsgd_bench.arrays import maps
from dsgd_bench.arrays.kernels import expressions


@pytest.fixture(scope="module")
def compiler():
    library = nvrtc.load()
    if library is None:
        pytest.skip("there is no NVRTC: pip install 'dsgd-bench[kernels]'")
    return library


FILES = {
    "kernels": (on_host.SOURCE, list(expressions())),
    "layers": (on_host.LAYERS, list(maps.expressions())),
}


@pytest.mark.parametrize("arch", ["sm_70", "sm_80", "sm_90"])
@pytest.mark.parametrize("file", FILES)
def test_the_kernels_compile_without_a_gpu(compiler, arch, file):
    path, names = FILES[file]
    source = path.read_text()
    binary, symbols = nvrtc.compile_for(compiler, source, arch, names)
    assert binary.startswith(b"\x7fELF")
    assert len(set(symbols)) == len(names)
    assert all(symbol.encode() in binary for symbol in symbols)


def test_a_mistake_in_a_kernel_is_found(compiler):
    with pytest.raises(nvrtc.CompileError, match="undefined"):
        nvrtc.compile_for(compiler, "__global__ void k() { no_such(); }", "sm_90", [])
