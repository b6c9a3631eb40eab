"""NVIDIA's run-time compiler, which needs no GPU: from its wheel or the system."""

import ctypes
import importlib.util
from pathlib import Path

from dsgd_bench.arrays.kernels import OPTIONS

GLOB = "nvidia/cuda_nvrtc/lib/libnvrtc.so.*"
OF_CUPY = ("-ftz=true", "--device-as-default-execution-space")
"""Options that CuPy adds to ours."""

NAMES = ("libnvrtc.so.12", "libnvrtc.so")


def load() -> ctypes.CDLL | None:
    """Return the library, or None where there is none."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations if spec else ():
        for path in sorted(Path(folder).parent.glob(GLOB)):
            return ctypes.CDLL(str(path))
    for name in NAMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


class CompileError(Exception):
    """What the compiler said."""


def compile_for(
    library: ctypes.CDLL, source: str, arch: str, expressions: list[str]
) -> tuple[bytes, list[str]]:
    """Return the binary code for e.g. ``sm_90``, and the symbol of each expression."""
    program = ctypes.c_void_p()

    def check(status: int) -> None:
        if status:
            size = ctypes.c_size_t()
            library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            library.nvrtcGetProgramLog(program, log)
            raise CompileError(f"status {status}: {log.value.decode()}")

    code = ctypes.c_char_p(source.encode())
    name = ctypes.c_char_p(b"kernels.cu")
    check(library.nvrtcCreateProgram(ctypes.byref(program), code, name, 0, None, None))
    for expression in expressions:
        check(library.nvrtcAddNameExpression(program, expression.encode()))
    words = [word.encode() for word in (f"-arch={arch}", *OPTIONS, *OF_CUPY)]
    check(
        library.nvrtcCompileProgram(
            program, len(words), (ctypes.c_char_p * len(words))(*words)
        )
    )
    size = ctypes.c_size_t()
    check(library.nvrtcGetCUBINSize(program, ctypes.byref(size)))
    binary = ctypes.create_string_buffer(size.value)
    check(library.nvrtcGetCUBIN(program, binary))
    symbols = []
    for expression in expressions:
        symbol = ctypes.c_char_p()
        check(
            library.nvrtcGetLoweredName(
                program, expression.encode(), ctypes.byref(symbol)
            )
        )
        symbols.append(symbol.value.decode())
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return binary.raw, symbols
