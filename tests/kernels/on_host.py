"""The kernels compiled for the host, to be launched with NumPy arrays."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dsgd_bench import arrays
from dsgd_bench.arrays import maps
from dsgd_bench.arrays.kernels import Kernels, Launch, expressions

HERE = Path(__file__).parent
SOURCE = Path(arrays.__file__).with_name("kernels.cu")
LAYERS = Path(arrays.__file__).with_name("layers.cu")
EXPRESSIONS = (*expressions(), *maps.expressions())
COMPILER = shutil.which("g++")

FLAGS = ("-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off")
WARNINGS = (
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-Wno-unused-function",
)

LAUNCH = """
extern "C" const char* launch_{number}(const unsigned* grid, unsigned threads, bool up,
                                       void** arguments)
{{
    return launch({expression}, grid, threads, up, arguments);
}}
"""


def build(folder: Path) -> ctypes.CDLL:
    """Compile all kernels to a library in `folder`, and load it."""
    parts = [f'#include "{path}"' for path in ("on_host.h", SOURCE, LAYERS)]
    parts += [
        LAUNCH.format(number=number, expression=expression)
        for number, expression in enumerate(EXPRESSIONS)
    ]
    program, library = folder / "program.cc", folder / "kernels.so"
    program.write_text("\n".join(parts))
    words = [COMPILER, *FLAGS, *WARNINGS, f"-I{HERE}", str(program), "-o", str(library)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return ctypes.CDLL(str(library))


def functions(library: ctypes.CDLL, ascending: bool) -> Callable[[str], Launch]:
    """Return what gives kernels that run here, each block's threads in this order."""
    numbers = {expression: k for k, expression in enumerate(EXPRESSIONS)}

    def function(expression: str) -> Launch:
        entry = getattr(library, f"launch_{numbers[expression]}")
        entry.restype = ctypes.c_char_p

        def launch(grid, block, arguments):
            held = [_held(argument) for argument in arguments]
            places = [ctypes.cast(ctypes.byref(x), ctypes.c_void_p) for x in held]
            shape = (ctypes.c_uint * 2)(*grid, *[1] * (2 - len(grid)))
            said = entry(
                shape,
                ctypes.c_uint(block[0]),
                ctypes.c_bool(ascending),
                (ctypes.c_void_p * len(places))(*places),
            )
            if said:
                raise RuntimeError(f"{expression}: {said.decode()}")

        return launch

    return function


def kernels(library: ctypes.CDLL, ascending: bool) -> Kernels:
    """Return kernels that run here; new memory is not zero."""
    function = functions(library, ascending)
    return Kernels(function, lambda size, dtype: np.full(size, 77, dtype))


def _held(argument):
    """Return the memory from which a launch would copy an argument, as CuPy has it."""
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.ctypes.data)
    if type(argument) is float:
        return ctypes.c_double(argument)
    if type(argument) is int:
        return ctypes.c_longlong(argument)
    raise TypeError(f"CuPy would not pass {type(argument)} as the kernels expect it")
