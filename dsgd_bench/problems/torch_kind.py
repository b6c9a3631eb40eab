"""The kind ``torch``: any PyTorch module as a problem; PyTorch is loaded when asked.

Nothing here needs PyTorch until a problem is made, so that studies are read, and other
problems run, without it.
"""

from dsgd_bench.arrays import HOST, Host
from dsgd_bench.errors import ConfigError
from dsgd_bench.problems.base import Problem, dtype_of
from dsgd_bench.problems.catalog import FOLDER
from dsgd_bench.problems.data import Size, load
from dsgd_bench.spec.ranges import Classes, Count, Widths


def torch_module(  # noqa: PLR0913 (every setting is an argument)
    *,
    module: str = "mlp",
    shape: Widths = (),
    data: str = "digits",
    folder: str = FOLDER,
    file: str = "",
    samples: Count = Size.samples,
    features: Count = Size.features,
    classes: Classes = Size.classes,
    seed: int = 0,
    dtype: str = "float32",
    device: Host = HOST,
) -> Problem:
    """Classification by a PyTorch module; see `Problem` for the methods.

    Parameters
    ----------
    module : str
        A name in `dsgd_bench.problems.torch_models`, or where a function or class lies
        that returns a module: ``"package.module:name"`` or ``"file.py:name"``. If it
        has parameters called ``shape`` and ``classes``, it gets those of the data.
    shape : tuple of int
        Shape of one sample, such as (3, 32, 32); flat if nothing is said.
    data : str
        ``"digits"``, ``"generated"``, ``"mnist"``, ``"fashion-mnist"`` or
        ``"cifar-10"``; see `dsgd_bench.problems.data`.
    folder : str
        Where published data lie; see `dsgd_bench.problems.catalog`.
    file : str
        A file in LIBSVM format, instead of `data`.
    samples, features, classes : int
        Size of generated data.
    seed : int
        Seed of the first model, of generated data, and of what the module draws.
    dtype : str
        ``"float32"`` or ``"float64"``: that of the parameters, whatever they had.
    device : Host
        Where module, data, model and gradient lie.

    Raises
    ------
    ConfigError
        If PyTorch is missing, the module cannot be made or used, and for settings and
        data as in `dsgd_bench.problems.mlp`.
    """
    element = dtype_of(dtype)
    try:
        from dsgd_bench.problems import torch_problem
    except (ImportError, OSError) as error:  # the latter: a library of it is missing
        raise ConfigError(
            "problem.kind = 'torch' needs PyTorch, which cannot be loaded "
            f"({error}): pip install 'dsgd-bench[torch]', or choose another problem"
        ) from None
    size = Size(samples, features, classes)
    loaded = load(data, size, seed=seed, dtype=element, folder=folder, file=file)
    return torch_problem.TorchProblem(
        module, loaded, shape=shape, seed=seed, dtype=element, device=device
    )
