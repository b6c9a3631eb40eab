"""A stand-in for CuPy and a GPU, so that the way there is tested on any machine.

Vectors on it are a type of their own that refuses to be mixed with NumPy's, as CuPy's
does. What is computed or copied in place only starts, as on a stream, and is carried
out when its thread finishes, or asks for a number: what is handed to MPI or to another
thread too early is garbage here. Kernels are the host's forms of the same operations.
Memory shared by IPC is shared memory of the host.
"""

import fcntl
import inspect
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

CHUNK_BYTES = 16
"""Small, so that the vectors of tests travel in several chunks."""

_thread = threading.local()


def _stream() -> list[Callable[[], None]]:
    """Return what this thread has started and not finished."""
    if not hasattr(_thread, "started"):
        _thread.started = []
    return _thread.started


def finish() -> None:
    """Carry out what this thread has started."""
    started = _stream()
    while started:
        started.pop(0)()


class Vector(NDArrayOperatorsMixin):
    """An array on the stand-in; what is done to it is done in its thread's order."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values

    def __array_ufunc__(
        self, ufunc: Any, method: str, *inputs: Any, **options: Any
    ) -> Any:
        out, operands = options.pop("out", ()), [*map(_bare, inputs)]
        compute = getattr(ufunc, method)
        if out:
            bare = tuple(map(_bare, out))
            _stream().append(lambda: compute(*operands, out=bare, **options))
            return out[0]
        finish()
        return _dressed(compute(*operands, **options))

    def __array_function__(
        self, function: Any, _types: Any, args: Any, options: Any
    ) -> Any:
        finish()
        bare = {key: _bare(value) for key, value in options.items()}
        return _dressed(function(*map(_bare, args), **bare))

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("implicit conversion of a vector on the GPU to NumPy")

    def __getitem__(self, key: Any) -> "Vector":
        keys = key if isinstance(key, tuple) else (key,)
        return Vector(self.values[*keys, ...])  # a view, of a single element too

    def __setitem__(self, key: Any, value: Any) -> None:
        target, source = self.values[key], _bare(value)
        _stream().append(lambda: np.copyto(target, source))

    def __float__(self) -> float:
        finish()
        return float(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __getattr__(self, name: str) -> Any:
        if name in ("size", "shape", "dtype", "nbytes", "ndim", "itemsize", "flags"):
            return getattr(self.values, name)
        raise AttributeError(name)

    @property
    def data(self) -> Any:
        return types.SimpleNamespace(ptr=self.values.ctypes.data)

    def get(self) -> NDArray[Any]:
        finish()
        return self.values.copy()

    def copy(self) -> "Vector":
        finish()
        return Vector(self.values.copy())

    def fill(self, value: float) -> None:
        self[...] = value

    def item(self) -> Any:
        finish()
        return self.values.item()

    def reshape(self, *shape: Any) -> "Vector":
        return Vector(self.values.reshape(*shape))


def _bare(value: Any) -> Any:
    """Return what NumPy computes with; refuse its own arrays, as CuPy does."""
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("a vector on the host meets one on the GPU")
    if type(value) in (list, tuple):
        return type(value)(map(_bare, value))
    return value.values if isinstance(value, Vector) else value


def _dressed(value: Any) -> Any:
    return Vector(np.asarray(value)) if isinstance(value, np.ndarray) else value


class Kernels:
    """The host's forms of the kernels, by name."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        from dsgd_bench import arrays
        from dsgd_bench.arrays import updates

        host_form = getattr(updates, name, None) or getattr(arrays, name)

        def launch(*operands: Any) -> None:
            bare = [*map(_bare, operands)]
            if name == "compensate_adaptively":  # its constant is the host form's own
                bare[-1] = bare[-1][:2]
            scratch = inspect.signature(host_form).parameters.get("scratch")
            if scratch is not None:
                pair = scratch.annotation is updates.Pair
                make = updates.Pair.like if pair else arrays.Scratch
                bare.append(
                    make(bare[1] if name in ("axpy", "accumulate") else bare[0])
                )
            lock = one_at_a_time if name == "accumulate" else nullcontext
            _stream().append(lambda: _under(lock, host_form, bare))

        return launch


def _under(lock: Any, work: Callable[..., None], operands: list[Any]) -> None:
    with lock():
        work(*operands)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Keep other processes out: sums on a GPU are atomic."""
    with (Path(tempfile.gettempdir()) / "dsgd-bench-stand-in.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Gpu:
    """The one stand-in that every rank computes on."""

    kind = "cuda"
    xp = np

    def use(self) -> None:
        """Nothing to do."""

    def put(self, values: Any) -> Vector:
        return Vector(np.array(values))

    def finish(self) -> None:
        finish()


def load(values: NDArray[Any], out: Vector) -> None:
    source = values.copy()
    _stream().append(lambda: np.copyto(out.values, source))


def _memory(x: Any) -> NDArray[Any]:
    return x.values if isinstance(x, Vector) else x


def start_copy(values: Any, out: Any) -> None:
    source, target = _memory(values), _memory(out)
    _stream().append(lambda: np.copyto(target, source))


def copy(values: Any, out: Any) -> None:
    start_copy(values, out)
    finish()


def chunks(x: Any) -> list[slice]:
    step = CHUNK_BYTES // x.itemsize
    return [slice(start, min(start + step, x.size)) for start in range(0, x.size, step)]


def pinned(like: Any) -> NDArray[Any]:
    return np.full(like.size, np.nan, like.dtype)


def arriving(values: Any, out: NDArray[Any]) -> Iterator[slice]:
    finish()
    for part in chunks(values):  # one by one: the others are still to come
        np.copyto(out[part], _memory(values)[part])
        yield part


class Mapped:
    def __init__(self, memory: NDArray[Any]) -> None:
        self.view = Vector(memory)

    def close(self) -> None:
        del self.view


class Shared:
    def __init__(self, length: int, dtype: Any) -> None:
        size = max(1, length) * np.dtype(dtype).itemsize
        self._memory = shared_memory.SharedMemory(create=True, size=size)
        self.vector = Vector(np.ndarray(length, dtype, self._memory.buf))
        self.vector.fill(0)
        finish()
        self.handle = self._memory.name.encode()

    def close(self) -> None:
        del self.vector
        self._memory.unlink()
        _let_go(self._memory)


class Opened:
    def __init__(self, handle: bytes, length: int, dtype: Any) -> None:
        self._memory = shared_memory.SharedMemory(handle.decode())
        # only who made it shall remove it
        resource_tracker.unregister(f"/{self._memory.name}", "shared_memory")
        self.vector = Vector(np.ndarray(length, dtype, self._memory.buf))

    def close(self) -> None:
        del self.vector
        _let_go(self._memory)


def _let_go(memory: shared_memory.SharedMemory) -> None:
    try:
        memory.close()
    except BufferError:  # a view is left somewhere; the process will end soon
        memory.close = lambda: None  # type: ignore[method-assign]


def install() -> None:
    """Put the stand-in behind the door to CuPy."""
    from dsgd_bench import arrays

    cuda, memory = (
        types.ModuleType(f"dsgd_bench.arrays.{name}") for name in ("cuda", "memory")
    )
    for name in ("Gpu", "finish", "copy", "start_copy", "load"):
        setattr(cuda, name, globals()[name])
    setattr(cuda, "kernels", Kernels)  # noqa: B010 (mypy knows no such attribute)
    for name in (
        *("chunks", "pinned", "arriving"),
        *("Mapped", "Shared", "Opened"),
    ):
        setattr(memory, name, globals()[name])
    for module in (cuda, memory):
        sys.modules[module.__name__] = module
        setattr(arrays, module.__name__.rpartition(".")[2], module)
