# From the root of the repository, with this file as .../packages/py_dsgd_bench/
# package.py in a Spack repository (`spack repo create`, `spack repo add`):
#
#   spack dev-build py-dsgd-bench@main
from spack_repo.builtin.build_systems.python import PythonPackage

from spack.package import *


class PyDsgdBench(PythonPackage):
    """Which distributed SGD algorithm reaches the target first on this cluster, and
    why? A benchmark of decentralized and asynchronous SGD over MPI."""

    license("Apache-2.0")

    version("main")

    variant("report", default=True, description="Draw figures, open traces in xarray")

    depends_on("py-setuptools@77:", type="build")

    with default_args(type=("build", "run")):
        depends_on("python@3.11:")
        depends_on("py-numpy@2:")
        depends_on("py-mpi4py@4.1:")
        depends_on("py-h5py@3.10:")
        depends_on("py-greenlet@3:")
        depends_on("py-jinja2@3.1:")
        depends_on("py-msgspec@0.19:")
        depends_on("py-rich@13.7:")
        depends_on("py-scikit-learn@1.4:")
        depends_on("py-threadpoolctl@3.2:")

    with when("+report"), default_args(type="run"):
        depends_on("py-matplotlib@3.8:")
        depends_on("py-scipy@1.12:")
        depends_on("py-xarray@2024.1:")
        depends_on("py-h5netcdf@1.3:")
