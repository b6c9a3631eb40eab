"""How dsgd_bench says no: each message says what, where and what to do."""


class DsgdError(Exception):
    """Base of every error that a user can mend; shown as one sentence, no traceback."""


class ConfigError(DsgdError):
    """A study, trial or machine file asks for something that does not exist."""


class LaunchError(DsgdError):
    """The ranks could not be started as the trial needs them."""


class HangError(LaunchError):
    """A launch that gives no sign of life any more."""


class FabricError(DsgdError):
    """The communication layer was used in a way that MPI forbids, or failed."""


class GpuError(DsgdError):
    """A GPU has too little memory for what a trial asks."""


class TraceError(DsgdError):
    """A trace cannot be written, or is missing, truncated or of another schema."""
