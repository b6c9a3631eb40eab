"""What must be right before CuPy is loaded: its caches, its streams, one copy of it."""

import os
import re
import tempfile
from importlib import metadata
from pathlib import Path

from dsgd_bench.errors import ConfigError

INSTALL = "pip install 'dsgd-bench[cuda12]' or [cuda13], as the driver has it"


def _cache_folder() -> str | None:
    """Return a folder of this host and user alone, None if it cannot be had.

    CuPy's own choice is the home folder, which on a cluster all ranks share; and code
    that another user could have written must not be loaded.
    """
    folder = Path(tempfile.gettempdir()) / f"dsgd-bench-{os.getuid()}" / "cupy"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        safe = all(
            place.stat().st_uid == os.getuid() and not place.is_symlink()
            for place in (folder, folder.parent)
        )
    except OSError:
        return None
    return str(folder) if safe else None


def prepare_environment() -> None:
    """Set what CuPy reads when it is imported, unless the user has set it."""
    os.environ.setdefault("CUPY_CUDA_PER_THREAD_DEFAULT_STREAM", "1")
    if "CUPY_CACHE_DIR" not in os.environ and "CUPY_CACHE_IN_MEMORY" not in os.environ:
        folder = _cache_folder()
        if folder is None:
            os.environ["CUPY_CACHE_IN_MEMORY"] = "1"
        else:
            os.environ["CUPY_CACHE_DIR"] = folder


def check_installed() -> None:
    """Refuse several CuPy packages at once: their files overwrite each other's."""
    names = {dist.metadata["Name"] or "" for dist in metadata.distributions()}
    found = sorted(
        name for name in names if re.fullmatch(r"cupy(-cuda\d+x|-rocm.*)?", name)
    )
    if len(found) > 1:
        raise ConfigError(
            f"compute.device is 'cuda', but {' and '.join(found)} are installed side "
            f"by side, which breaks both: pip uninstall {' '.join(found)}, then "
            + INSTALL
        )
