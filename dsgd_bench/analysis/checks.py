"""One check of a finished trial and what it found; all checks of one trial."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One thing that a valid trial has.

    Attributes
    ----------
    name : str
        What is checked.
    passed : bool
        Whether it is so.
    found, expected : str
        What the trace says, and what it should say, with units.
    why : str
        Why this must hold for this trial.
    """

    name: str
    passed: bool
    found: str
    expected: str
    why: str


@dataclass(frozen=True)
class Verification:
    """All checks of one trial.

    Attributes
    ----------
    trial_id, label : str
        Which trial.
    checks : tuple of Check
        Those that apply.
    """

    trial_id: str
    label: str
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return tuple(check for check in self.checks if not check.passed)


def equal(name: str, found: float, expected: float, unit: str, why: str) -> Check:
    """Return the check that a number is exactly as expected."""
    told = f"{found:.12g} {unit}"
    return Check(name, found == expected, told, f"{expected:.12g}", why)


def at_most(name: str, found: float, high: float, unit: str, why: str) -> Check:
    """Return the check that a number is not above a limit."""
    return Check(
        name, bool(found <= high), f"{found:.4g} {unit}", f"<= {high:.4g}", why
    )


def at_least(name: str, found: float, low: float, unit: str, why: str) -> Check:
    """Return the check that a number is not below a limit."""
    return Check(name, bool(found >= low), f"{found:.4g} {unit}", f">= {low:.4g}", why)
