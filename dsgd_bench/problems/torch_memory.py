"""What a problem and PyTorch share: memory, by DLPack, and on a GPU the order of work.

Parameters and their gradients are views of flat vectors: nothing is copied between the
two. On a GPU, torch works on a stream of its own, because its backward pass starts
kernels from threads of its own, for which CUDA's per-thread default stream would be
another stream. That stream first waits for what the caller's has been given, and is
finished when the loss has been read from it.
"""

import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from dsgd_bench.arrays import Array, Host, on_gpu
from dsgd_bench.errors import GpuError

KEPT = 8
"""Flat vectors whose views are kept: algorithms take turns with two or three."""


def shared(array: NDArray[Any]) -> torch.Tensor:
    """Return a tensor in the memory of `array`, which may be for reading only."""
    try:
        return torch.from_dlpack(array)
    except BufferError:  # NumPy before 2.1 hands nothing out that is for reading only
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.from_numpy(array)


def allow_tf32(allowed: bool) -> None:
    """Let a GPU round float32 to TF32 where it multiplies, or not.

    By the names that all versions have: since PyTorch 2.9 there are others, too, but
    code that then asks for the old ones, as its compiler does, gets an error.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed


def address(x: NDArray[Any]) -> int:
    """Return where the first element of `x` lies."""
    if on_gpu(x):
        return int(x.data.ptr)  # type: ignore[attr-defined]
    return int(x.__array_interface__["data"][0])


@dataclass(frozen=True)
class Flat:
    """A flat vector as torch sees it: whole, and in the shapes of the parameters."""

    whole: torch.Tensor
    parts: list[torch.Tensor]


class Views:
    """Parameters whose values and gradients lie in whatever flat vectors are in use.

    Views are made once for every vector and kept, by address; a kept view keeps its
    memory alive, so no other vector can come to lie there.

    Parameters
    ----------
    parameters : iterable of torch.nn.Parameter
        In the order in which they lie in the flat vector.

    Attributes
    ----------
    slices : list of slice
        Where each of them lies.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._shapes = [parameter.shape for parameter in self._parameters]
        self.slices: list[slice] = []
        end = 0
        for parameter in self._parameters:
            start, end = end, end + parameter.numel()
            self.slices.append(slice(start, end))
        self._kept: OrderedDict[int, Flat] = OrderedDict()
        self._model: Flat | None = None
        self._gradient: Flat | None = None

    def use(self, x: Array) -> None:
        """Let the parameters have their values in `x`."""
        model = self._of(x)
        if model is not self._model:
            for parameter, part in zip(self._parameters, model.parts, strict=True):
                parameter.data = part
            self._model = model

    def collect(self, out: Array) -> None:
        """Let backward passes add their gradients up in `out`, from zero."""
        gradient = self._of(out)
        if gradient is not self._gradient:
            for parameter, part in zip(self._parameters, gradient.parts, strict=True):
                parameter.grad = part
            self._gradient = gradient
        gradient.whole.zero_()

    def _of(self, x: Array) -> Flat:
        where = address(x)
        if where in self._kept:
            self._kept.move_to_end(where)
            return self._kept[where]
        whole = shared(x)
        parts = [
            whole[part].view(shape)
            for part, shape in zip(self.slices, self._shapes, strict=True)
        ]
        self._kept[where] = Flat(whole, parts)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[where]

    def forget(self) -> None:
        """Let go of all vectors but the ones in use."""
        self._kept.clear()
        self._model = self._gradient = None


class Place:
    """Where torch works: on the host, or on the GPU of `device`, in the right order.

    Parameters
    ----------
    device : Host
        Where the flat vectors lie.

    Attributes
    ----------
    device : torch.device
        The same for torch.
    """

    def __init__(self, device: Host) -> None:
        self._host = device
        self.device = torch.device("cpu")
        if device.kind == "cuda":
            self.device = torch.device("cuda", device.number)  # type: ignore[attr-defined]
            self._limit_memory()
            self._stream = torch.cuda.Stream(self.device)
            self._event = device.xp.cuda.Event(disable_timing=True)

    def _limit_memory(self) -> None:
        """Let torch have as much of the GPU as CuPy may: others may be on it, too."""
        limit = self._host.xp.get_default_memory_pool().get_limit()
        if limit:
            _, total = self._host.xp.cuda.runtime.memGetInfo()
            share = min(1.0, limit / total)
            torch.cuda.set_per_process_memory_fraction(share, self.device)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Return a block in which torch works after all that this thread has started.

        Reading a value from the GPU is what completes it, so a block must end so.

        Raises
        ------
        GpuError
            If torch is left without memory there.
        """
        if self.device.type == "cpu":
            yield
            return
        self._event.record()
        runtime = self._host.xp.cuda.runtime
        runtime.streamWaitEvent(self._stream.cuda_stream, self._event.ptr)
        try:
            with torch.cuda.stream(self._stream):
                yield
        except torch.cuda.OutOfMemoryError as error:
            said = ". ".join(str(error).split(". ")[:2])  # then come its allocations
            raise GpuError(f"PyTorch says: {said}") from None

    def seed(self, value: int) -> None:
        """Let what modules draw next be a function of `value`, as dropout does."""
        torch.default_generator.manual_seed(value)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index].manual_seed(value)

    def staging(self, count: int) -> torch.Tensor:
        """Return host memory for so many positions, from which a GPU copies freely."""
        pinned = self.device.type == "cuda"
        return torch.empty(count, dtype=torch.int64, pin_memory=pinned)
