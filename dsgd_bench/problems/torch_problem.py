"""A PyTorch module as a problem.

Formula   f(x) = mean over samples of -log softmax(module(input))[label]
Model     x = the parameters that the module trains, in the order in which it names
          them, one flat vector; what it does not train stays as it was made
Start     as the module's own code draws it, from seeded generators
Optimum   unknown

What a module draws while it computes (dropout) is a function of the trial's seed and of
the batch. Buffers, such as the running statistics of batch norm, stay on their rank,
have no part in training, and are estimated anew, from training samples, before a model
is evaluated: so a judgment is a function of the model alone. Convolutions of float32
are not rounded to TF32, unless the study or the module's own code says so; for bfloat16
the module runs under torch's autocast.

PyTorch allocates what lies between the layers in every step.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from dsgd_bench.arrays import Array, Host, on_gpu
from dsgd_bench.errors import ConfigError
from dsgd_bench.problems import torch_source
from dsgd_bench.problems.base import Judgment, Ready
from dsgd_bench.problems.data import Data
from dsgd_bench.problems.torch_memory import Place, Views, allow_tf32, shared

SEED_BITS = 2**64 - 1
"""Those of a seed that torch takes."""

CHUNK = 256
"""Samples evaluated at a time, which bounds the memory that evaluation needs."""

ESTIMATED = 4096
"""Training samples, at most, from which running statistics are estimated."""


@dataclass(frozen=True)
class _Workspace:
    """Buffers for one batch size; `positions` on the host are seen by NumPy too."""

    seen: NDArray[np.int64]
    positions: torch.Tensor
    moved: torch.Tensor
    inputs: torch.Tensor
    labels: torch.Tensor


class TorchProblem:
    """Classification by a PyTorch module; see `Problem` for the methods.

    Parameters
    ----------
    module : str
        Where the module comes from, as the setting of that name says.
    data : Data
        Training and held-out samples, on the host.
    shape : tuple of int
        Shape of one sample; empty for flat ones.
    seed : int
        Seed of the first model and of what the module draws.
    dtype : numpy.dtype
        Element type of model and gradient.
    device : Host
        Where they lie.

    Raises
    ------
    ConfigError
        If the module cannot be made, or not be used with these data.
    """

    def __init__(
        self,
        module: str,
        data: Data,
        *,
        shape: tuple[int, ...],
        seed: int,
        dtype: np.dtype[Any],
        device: Host,
    ) -> None:
        self.dtype = dtype
        self.samples = len(data.inputs)
        self.data_bytes = data.nbytes
        self.labels: NDArray[np.int64] | None = data.labels
        self.optimum: float | None = None
        self._shape = _checked_shape(shape, data.inputs.shape[1])
        self._seed = seed
        self._device = device
        self._place = Place(device)
        self._rounds = device.precision == "bfloat16"
        _keep_precision(device.precision)
        self._module = torch_source.made(module, self._shape, data.classes, seed)
        self._module.to(self._place.device, _torch_dtype(dtype)).train()
        trained = [p for p in self._module.parameters() if p.requires_grad]
        self._views = Views(trained)
        self.dimension = self._views.slices[-1].stop
        flat = torch.cat([p.detach().reshape(-1).cpu() for p in trained])
        self._start: Array = flat.numpy()
        self._inputs, self._labels = self._moved(data.inputs, data.labels)
        self._held = self._moved(data.held_inputs, data.held_labels)
        self._workspaces: dict[int, _Workspace] = {}
        self._report = _Report(trained, self._views.slices)
        self._probe(module, data.classes)

    def _moved(
        self, inputs: Array, labels: NDArray[np.int64]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return samples where the module is; on the host they are the same memory."""
        place = self._place.device
        samples = shared(inputs).view(len(inputs), *self._shape)
        return samples.to(place), shared(labels).to(place)

    def initial(self) -> Array:
        """Return the first model as a new array: the same on every rank."""
        return self._device.put(self._start)

    def gradient(
        self,
        x: Array,
        indices: NDArray[np.intp],
        out: Array,
        ready: Ready | None = None,
    ) -> float:
        """Write the mean gradient over `indices` into `out`; return the mean loss.

        `ready` is called in this thread.
        """
        with self._place.working():
            work = self._workspace(len(indices))
            np.copyto(work.seen, indices)
            self._views.use(x)
            self._views.collect(out)
            seed = self._seed << 32 | zlib.crc32(work.seen.data)
            self._place.seed(seed & SEED_BITS)
            if work.moved is not work.positions:
                work.moved.copy_(work.positions, non_blocking=True)
            torch.index_select(self._inputs, 0, work.moved, out=work.inputs)
            torch.index_select(self._labels, 0, work.moved, out=work.labels)
            loss = cross_entropy(self._scores(work.inputs), work.labels)
            with self._report.to(ready):
                loss.backward()
            return float(loss.item())  # on a GPU: complete

    def evaluate(self, x: Array) -> Judgment:
        """Evaluate a model by all training samples and by the held-out ones."""
        if on_gpu(x) != (self._device.kind == "cuda"):
            x = self._device.put(x)
        self._views.forget()
        with self._place.working(), torch.no_grad():
            self._views.use(x)
            self._estimate_buffers()
            self._module.eval()
            loss, _ = self._totals(self._inputs, self._labels)
            _, correct = self._totals(*self._held)
            self._module.train()
        self._views.forget()
        return Judgment(loss / self.samples, correct / len(self._held[1]))

    def _scores(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return what the module makes of `inputs`, in the model's element type."""
        if self._rounds:
            with torch.autocast(inputs.device.type, torch.bfloat16):
                scores: torch.Tensor = self._module(inputs)
        else:
            scores = self._module(inputs)
        return scores.to(self._inputs.dtype)

    def _totals(self, inputs: torch.Tensor, labels: torch.Tensor) -> tuple[float, int]:
        """Return summed loss and number of correct guesses."""
        loss, correct = 0.0, 0
        chunks = zip(inputs.split(CHUNK), labels.split(CHUNK), strict=True)
        for some, right in chunks:
            scores = self._scores(some)
            loss += cross_entropy(scores, right).item() * len(some)
            correct += int((scores.argmax(1) == right).sum().item())
        return loss, correct

    def _estimate_buffers(self) -> None:
        """Let running statistics be those of this model on training samples."""
        norms = [m for m in self._module.modules() if _has_statistics(m)]
        if not norms:
            return
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all chunks
        self._place.seed(self._seed)
        # Evenly from everywhere: files may be sorted by class.
        step = -(-self.samples // ESTIMATED)
        some = self._inputs[::step]
        for chunk in some.tensor_split(-(-len(some) // CHUNK)):
            self._scores(chunk)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def _workspace(self, batch: int) -> _Workspace:
        if batch not in self._workspaces:
            place, positions = self._place.device, self._place.staging(batch)
            self._workspaces[batch] = _Workspace(
                seen=positions.numpy(),
                positions=positions,
                moved=positions.to(place),
                inputs=self._inputs.new_empty((batch, *self._shape)),
                labels=self._labels.new_empty(batch),
            )
        return self._workspaces[batch]

    def _probe(self, module: str, classes: int) -> None:
        """Refuse a module that cannot take these samples, or gives no scores."""
        some = self._inputs[:2]
        with self._place.working(), torch.no_grad():
            self._module.eval()
            try:
                scores = self._module(some)
            except Exception as error:  # it is the user's code
                raise ConfigError(
                    f"problem setting module = {module!r} cannot take samples of shape "
                    f"{self._shape} ({torch_source.said(error)}); set the problem "
                    "setting shape to what it takes"
                ) from error
            self._module.train()
        given = tuple(getattr(scores, "shape", ()))
        if len(given) != 2 or given[0] != len(some) or given[1] < classes:
            what = f"shape {given}" if given else f"type {type(scores).__name__}"
            raise ConfigError(
                f"problem setting module = {module!r} makes {what} of {len(some)} "
                f"samples; it must make scores of shape ({len(some)}, {classes}), one "
                "for each class"
            )


class _Report:
    """Tells which part of the gradient is final while a backward pass runs.

    Parameters may become final in any order; told is what is final up to the end of the
    vector. On the host a hook tells it at once. On a GPU, where hooks run in threads of
    torch as soon as the work is queued, a hook only marks the place in the queue; the
    calling thread then waits for one mark after the other.
    """

    def __init__(self, trained: list[torch.nn.Parameter], slices: list[slice]) -> None:
        self._trained, self._slices = trained, slices
        self._on_gpu = trained[0].is_cuda
        self._hooked = False
        self._ready: Ready | None = None
        self._final = [False] * len(slices)
        self._left = 0
        self._marks: list[tuple[int, torch.cuda.Event]] = []

    @contextmanager
    def to(self, ready: Ready | None) -> Iterator[None]:
        """Return a block that runs one backward pass and tells `ready` meanwhile."""
        if ready is None:
            yield
            return
        if not self._hooked:
            for number, parameter in enumerate(self._trained):
                parameter.register_post_accumulate_grad_hook(self._hook(number))
            self._hooked = True
        self._final = [False] * len(self._slices)
        self._left = len(self._slices)  # so many are not told yet
        self._marks.clear()
        self._ready = ready
        try:
            yield
            for number, mark in self._marks:
                mark.synchronize()
                self._tell(number)
            self._final = [True] * len(self._slices)  # a loss may not depend on all
            self._tell(0)
        finally:
            self._ready = None

    def _hook(self, number: int) -> Callable[[torch.Tensor], None]:
        def hook(_: torch.Tensor) -> None:
            if self._ready is None:
                return
            if self._on_gpu:
                mark = torch.cuda.Event()
                mark.record()  # on the stream of the pass, current in this thread
                self._marks.append((number, mark))
            else:
                self._tell(number)

        return hook

    def _tell(self, number: int) -> None:
        """Note that one parameter is final, and tell what is final to the end."""
        self._final[number] = True
        before = self._left
        while self._left and self._final[self._left - 1]:
            self._left -= 1
        if self._left < before and self._ready is not None:
            first, last = self._slices[self._left], self._slices[before - 1]
            self._ready(slice(first.start, last.stop))


def _checked_shape(shape: tuple[int, ...], features: int) -> tuple[int, ...]:
    """Return the shape of a sample, flat if none is asked for."""
    if not shape:
        return (features,)
    if min(shape) < 1 or int(np.prod(shape)) != features:
        raise ConfigError(
            f"problem setting shape is {shape}, but a sample has {features} values; "
            "give positive numbers whose product that is, or leave it out"
        )
    return shape


def _torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.float64 if dtype == np.float64 else torch.float32


def _has_statistics(module: torch.nn.Module) -> bool:
    """Tell batch norms, of any kind, whose running statistics are used when judging."""
    return getattr(module, "running_mean", None) is not None and hasattr(
        module, "reset_running_stats"
    )


def _keep_precision(precision: str) -> None:
    """Compute what was asked for, the same every time; the module's code may differ."""
    torch.backends.cudnn.deterministic = True
    allow_tf32(precision == "tf32")
