"""A temporary cache for Snakemake where the home folder is read-only, as in containers.

Without it, Snakemake stops with a traceback before it reads the Snakefile, so profiles call this.
"""

import atexit
import logging
import os
import shutil
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)


def provide_cache() -> None:
    """Use a temporary cache for this process and its jobs if the usual one is read-only."""
    # The folder that Snakemake chooses.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "snakemake"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            return
    except OSError:
        folder = tempfile.mkdtemp(prefix="denoiseg_flow_cache_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["XDG_CACHE_HOME"] = folder
    logger.warning(
        "cannot write to %s: using the temporary cache %s; to keep a cache, set XDG_CACHE_HOME to "
        "a writable folder",
        cache,
        folder,
    )
