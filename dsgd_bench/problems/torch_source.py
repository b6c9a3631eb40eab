"""From the setting ``module`` to a module: found, made and checked."""

import importlib
import importlib.util
import inspect
import random
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from dsgd_bench.errors import ConfigError
from dsgd_bench.problems.torch_models import MODELS


def made(name: str, shape: tuple[int, ...], classes: int, seed: int) -> torch.nn.Module:
    """Return a new module: the same on every rank, on the host, ready to be moved.

    Parameters
    ----------
    name : str
        What the setting ``module`` says.
    shape : tuple of int
        Shape of one sample.
    classes : int
        Classes of the data.
    seed : int
        Seed of the generators from which its parameters are drawn.

    Raises
    ------
    ConfigError
        If there is no such function or class, it fails, or what it returns is no
        module with real parameters of one type on one device.
    """
    build = found(name)
    wanted = {"shape": shape, "classes": classes}
    named = inspect.signature(build).parameters
    random.seed(seed)  # a module may draw from any of the three
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
    try:
        module = build(**{key: wanted[key] for key in wanted if key in named})
    except Exception as error:  # it is the user's code
        raise ConfigError(
            f"problem setting module = {name!r} failed with {said(error)}; make it "
            "work when called with nothing but shape and classes, as far as it names "
            "them"
        ) from error
    _check(module, name)
    return module


def found(name: str) -> Callable[..., Any]:
    """Return the function or class that the setting ``module`` names.

    Raises
    ------
    ConfigError
        If there is none.
    """
    place, colon, attribute = name.rpartition(":")
    if not colon:
        if name in MODELS:
            return MODELS[name]
        raise ConfigError(
            f"problem setting module is {name!r}; use one of: {', '.join(MODELS)}, or "
            "name a function or class of yours as 'package.module:name' or "
            "'file.py:name'"
        )
    code = _from_file(place) if place.endswith(".py") else _from_package(place)
    build = getattr(code, attribute, None)
    if not callable(build):
        what = "nothing" if build is None else f"a {type(build).__name__}"
        raise ConfigError(
            f"problem setting module is {name!r}, but {place} has {what} called "
            f"{attribute}; name a function or class that returns a torch.nn.Module"
        )
    return build  # type: ignore[no-any-return]


def _from_package(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except Exception as error:  # importing runs the user's code
        raise ConfigError(
            f"problem setting module names {place}, which cannot be imported "
            f"({said(error)}); install it in this environment, or name a file: "
            "'file.py:name'"
        ) from error


def _from_file(place: str) -> ModuleType:
    """Run a file as a module of its own, known to Python by its path."""
    path = Path(place)
    if not path.is_file():
        raise ConfigError(
            f"problem setting module names {place}, which is no file in {Path.cwd()}; "
            "start there where it lies, or give its whole path"
        )
    name = f"dsgd_bench_{path.stem}_{zlib.crc32(str(path.resolve()).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    code = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    sys.modules[name] = code  # classes look there for where they were defined
    try:
        spec.loader.exec_module(code)  # type: ignore[union-attr]
    except Exception as error:  # importing runs the user's code
        del sys.modules[name]
        raise ConfigError(
            f"problem setting module names {place}, which fails with {said(error)}; "
            "mend it"
        ) from error
    return code


def _check(module: Any, name: str) -> None:
    """Refuse what cannot be one flat vector of real numbers on one device."""
    if not isinstance(module, torch.nn.Module):
        raise ConfigError(
            f"problem setting module = {name!r} returns a {type(module).__name__}; it "
            "must return a torch.nn.Module"
        )
    trained = {key: p for key, p in module.named_parameters() if p.requires_grad}
    if not trained:
        raise ConfigError(
            f"problem setting module = {name!r} has no parameters to train; let one "
            "have requires_grad"
        )
    for key, p in trained.items():
        if isinstance(p, torch.nn.parameter.UninitializedParameter) or p.is_meta:
            raise ConfigError(
                f"parameter {key} of problem setting module = {name!r} has no values "
                "yet; give every layer its sizes, and make it on the CPU"
            )
        if not p.is_floating_point():
            raise ConfigError(
                f"parameter {key} of problem setting module = {name!r} is {p.dtype}; "
                "only real parameters can be one flat model: hold real and imaginary "
                "parts as two"
            )
    for what in ("dtype", "device"):
        several = sorted({str(getattr(p, what)) for p in trained.values()})
        if len(several) > 1:
            raise ConfigError(
                f"problem setting module = {name!r} has parameters of more than one "
                f"{what}: {', '.join(several)}; make them all alike"
            )


def said(error: BaseException) -> str:
    """Return type and first line of what an error says."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
