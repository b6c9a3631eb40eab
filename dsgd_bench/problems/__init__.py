"""Problems: data and model behind the loss and gradient of one flat vector."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from dsgd_bench.arrays import HOST, Host
from dsgd_bench.errors import ConfigError
from dsgd_bench.problems.base import Judgment, Problem
from dsgd_bench.problems.lenet import LeNet
from dsgd_bench.problems.logistic import Logistic
from dsgd_bench.problems.message import Message
from dsgd_bench.problems.mlp import MLP
from dsgd_bench.problems.quadratic import Quadratic
from dsgd_bench.problems.resnet20 import ResNet20
from dsgd_bench.problems.shards import Batches
from dsgd_bench.problems.softmax import Softmax
from dsgd_bench.problems.torch_kind import torch_module
from dsgd_bench.spec.trial import ProblemSpec

__all__ = ["PROBLEMS", "Batches", "Judgment", "Problem", "make", "settings"]

PROBLEMS: dict[str, Callable[..., Problem]] = {
    "logistic": Logistic,
    "softmax": Softmax,
    "mlp": MLP,
    "lenet": LeNet,
    "resnet20": ResNet20,
    "quadratic": Quadratic,
    "message": Message,
    "torch": torch_module,
}
"""Every problem by its kind; its settings are its keyword-only arguments."""

NOT_SETTINGS = ("seed", "dtype", "device")
"""Arguments that every problem has, and that a trial gives elsewhere."""


def settings(kind: str) -> dict[str, tuple[Any, Any]]:
    """Return type and default of every setting of one kind of problem.

    Raises
    ------
    ConfigError
        For an unknown kind.
    """
    if kind not in PROBLEMS:
        raise ConfigError(f"problem.kind is {kind!r}; {_use(kind, PROBLEMS)}")
    return dict(_settings_of(PROBLEMS[kind]))


@cache  # thousands of trials ask
def _settings_of(problem: Callable[..., Problem]) -> dict[str, tuple[Any, Any]]:
    parameters = inspect.signature(problem).parameters.values()
    return {
        parameter.name: (parameter.annotation, parameter.default)
        for parameter in parameters
        if parameter.name not in NOT_SETTINGS
    }


def make(spec: ProblemSpec, seed: int, *, device: Host = HOST) -> Problem:
    """Build the problem of a trial: the same on every rank.

    Parameters
    ----------
    spec : ProblemSpec
        Its kind, element type and settings.
    seed : int
        Seed of the trial.
    device : Host
        Where it computes: its data and models lie there.

    Raises
    ------
    ConfigError
        For an unknown kind or setting, or a value that cannot be.
    """
    known = settings(spec.kind)
    for name in spec.settings:
        if name not in known:
            raise ConfigError(
                f"problem {spec.kind!r} has no setting {name!r}; {_use(name, known)}"
            )
    return PROBLEMS[spec.kind](
        **spec.settings, dtype=spec.dtype, seed=seed, device=device
    )


def _use(name: str, known: Mapping[str, object]) -> str:
    """Say what may be used instead of `name`, and what was probably meant."""
    near = get_close_matches(name, known, n=1)
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    return f"use one of: {', '.join(known)}{meant}"
