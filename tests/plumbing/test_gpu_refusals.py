"""What is said where there is no GPU, or not the right CuPy; CuPy is a stub here."""

import subprocess
import sys
from pathlib import Path

import pytest

STUB = """
from types import SimpleNamespace as Space


class CUDARuntimeError(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    pass


def no_device():
    raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")


__version__ = "14.0"
pool = Space(get_limit=lambda: 2**30, set_limit=lambda size: None)
get_default_memory_pool = lambda: pool
cuda = Space(
    MemoryHook=object,
    Device=lambda number: Space(use=lambda: None, compute_capability="70"),
    memory=Space(OutOfMemoryError=OutOfMemoryError),
    runtime=Space(
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=COUNT,
        driverGetVersion=lambda: DRIVER,
        runtimeGetVersion=lambda: 13020,
        memGetInfo=lambda: (2**28, 2**33),
    ),
)
"""


def stub(folder: Path, *, count: str = "no_device", driver: int = 13000) -> None:
    text = STUB.replace("COUNT", count).replace("DRIVER", str(driver))
    (folder / "cupy.py").write_text(text)
    (folder / "cupyx.py").write_text("")


def said(folder: Path, code: str = "arrays.device('cuda')") -> str:
    """Return the one sentence with which `code` is refused."""
    program = (
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "from dsgd_bench import arrays\n"
        "from dsgd_bench.errors import DsgdError\n"
        f"try:\n    {code}\n"
        "except DsgdError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.strip()


def test_a_missing_cupy_is_named_with_the_extra_that_brings_it(tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('No module named cupy')")
    text = said(tmp_path)
    assert "which needs CuPy" in text
    assert "dsgd-bench[cuda12]" in text


def test_a_host_without_a_gpu_is_told_from_an_old_driver(tmp_path):
    stub(tmp_path)
    text = said(tmp_path)
    assert "no GPU that this process can use (cudaErrorNoDevice" in text
    assert "compute.device = 'cpu'" in text


def test_a_driver_that_is_too_old_is_told_which_cuda_it_serves(tmp_path):
    stub(tmp_path, driver=12020)
    text = said(tmp_path)
    assert "serves CUDA up to 12.2 and the installed CuPy needs 13.2" in text


def test_two_cupy_packages_are_refused_by_name(tmp_path):
    stub(tmp_path)
    for name in ("cupy-cuda12x", "cupy-cuda13x", "cupy-xarray"):
        info = tmp_path / f"{name.replace('-', '_')}-14.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\n")
    text = said(tmp_path)
    assert "cupy-cuda12x and cupy-cuda13x are installed side by side" in text
    assert "pip uninstall cupy-cuda12x cupy-cuda13x, then" in text


def test_a_precision_that_a_gpu_lacks_is_refused(tmp_path):
    stub(tmp_path, count="lambda: 1")
    text = said(tmp_path, "arrays.device('cuda', 0, 'tf32')")
    assert "compute capability 7.0, has no tf32" in text


@pytest.mark.parametrize(
    "error",
    [
        "cupy.cuda.memory.OutOfMemoryError('Out of memory allocating 5 bytes')",
        "cupy.cuda.runtime.CUDARuntimeError('cudaErrorMemoryAllocation: ...')",
    ],
)
def test_exhausted_memory_names_rank_and_free_memory(tmp_path, error):
    stub(tmp_path, count="lambda: 1")
    code = (
        f"import cupy\n    with arrays.device('cuda').guard(3):\n        raise {error}"
    )
    text = said(tmp_path, code)
    assert text.startswith("rank 3 has too little memory on GPU 0: ")
    assert "0.25 GiB of 8 GiB are free" in text
    assert "smaller batch" in text


def test_other_errors_of_the_driver_are_not_taken_for_memory(tmp_path):
    stub(tmp_path, count="lambda: 1")
    code = (
        "import cupy\n"
        "    wrong = cupy.cuda.runtime.CUDARuntimeError\n"
        "    try:\n"
        "        with arrays.device('cuda').guard(3):\n"
        "            raise wrong('cudaErrorLaunch')\n"
        "    except wrong as error:\n"
        "        print(error)"
    )
    assert said(tmp_path, code) == "cudaErrorLaunch"
