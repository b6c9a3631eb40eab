"""The networks of ``bench problems`` in PyTorch, as one would write them there.

Parameters are ordinary ones, gradients are left for torch to allocate, as is usual
there, and data lie where the module is. A form gathers a batch by its positions, runs
forward and backward, and reads the loss: what our problems do for a gradient.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from dsgd_bench.arrays import Array, Host
from dsgd_bench.bench.cases import CLASSES, Case
from dsgd_bench.problems.data import Data
from dsgd_bench.problems.torch_memory import allow_tf32
from dsgd_bench.problems.torch_models import MODELS

Form = Callable[[NDArray[np.intp]], float]
"""Computes the gradient of a batch, given by its positions; returns the loss."""


class TorchForms:
    """One network in torch, eager and compiled.

    Parameters
    ----------
    case : Case
        The network.
    data : Data
        Its samples, on the host.
    device : Host
        Where to compute.
    precision : str
        How a GPU multiplies float32: ``"float32"``, ``"tf32"`` or ``"bfloat16"``.
    """

    def __init__(self, case: Case, data: Data, device: Host, precision: str) -> None:
        number = getattr(device, "number", 0)
        self._place = torch.device(
            device.kind, number if device.kind == "cuda" else None
        )
        self._precision = precision
        torch.backends.cudnn.benchmark = True  # what is fastest here
        allow_tf32(precision == "tf32")
        module = MODELS[case.kind](case.shape, CLASSES, **case.options)
        inputs = torch.from_numpy(data.inputs).view(-1, *case.shape)
        self._module = module.to(self._place, inputs.dtype).train()
        self._inputs = inputs.to(self._place)
        self._labels = torch.from_numpy(data.labels).to(self._place)
        self._compiled: Callable[..., torch.Tensor] | None = None

    def take(self, x: Array) -> None:
        """Let the module have the model `x` of our problem, on the host."""
        with torch.no_grad():
            for parameter, part in self._parts(x):
                ours = torch.from_numpy(np.ascontiguousarray(part))
                parameter.copy_(ours)

    def gradient(self, like: Array) -> Array:
        """Return the last gradient as our problem has it, on the host."""
        g: Array = np.empty_like(like)
        for parameter, part in self._parts(g):
            part[...] = parameter.grad.cpu().numpy()
        return g

    def _parts(self, x: Array) -> Iterator[tuple[torch.nn.Parameter, Array]]:
        """Yield each parameter with its part of `x`, a view in the parameter's shape.

        Our matrices are (in, out), our convolutions (out, rows, columns, in).
        """
        start = 0
        for parameter in self._module.parameters():
            end = start + parameter.numel()
            part, shape = x[start:end], tuple(parameter.shape)
            if len(shape) == 4:
                channels, before, rows, columns = shape
                part = part.reshape(channels, rows, columns, before)
                part = part.transpose(0, 3, 1, 2)
            elif len(shape) == 2:
                part = part.reshape(shape[1], shape[0]).T
            yield parameter, part
            start = end

    def eager(self, positions: NDArray[np.intp]) -> float:
        """Compute a gradient operation by operation."""
        return self._pass(self._loss, positions)

    def compiled(self, positions: NDArray[np.intp]) -> float:
        """Compute a gradient by what `torch.compile` makes, the first time, of it."""
        if self._compiled is None:
            self._compiled = torch.compile(self._loss)
        return self._pass(self._compiled, positions)

    def _pass(
        self, loss_of: Callable[..., torch.Tensor], positions: NDArray[np.intp]
    ) -> float:
        moved = torch.from_numpy(positions).to(self._place)
        self._module.zero_grad(set_to_none=True)
        with self._casting():
            loss = loss_of(self._inputs[moved], self._labels[moved])
        loss.backward()
        return float(loss.item())

    def _loss(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return cross_entropy(self._module(inputs), labels)

    def _casting(self) -> AbstractContextManager[Any]:
        if self._precision != "bfloat16":
            return nullcontext()
        block: AbstractContextManager[Any] = torch.autocast("cuda", torch.bfloat16)
        return block


def has_cuda() -> bool:
    """Tell whether torch can use a GPU."""
    return bool(torch.cuda.is_available())


def described() -> str:
    """Return version and threads of torch."""
    return f"{torch.__version__}, {torch.get_num_threads()} threads"
