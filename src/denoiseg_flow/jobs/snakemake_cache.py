"""A place for Snakemake's cache where the home folder cannot be written, as in containers.

Snakemake would stop with a traceback before it has read the Snakefile, so this is for profiles.
"""

import atexit
import logging
import os
import shutil
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)


def provide_cache() -> None:
    """Let the cache of this process, and of its jobs, be temporary if it cannot be written."""
    # As Snakemake and the library that it asks choose it.
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
        "%s cannot be written: the cache is in %s for this time; set XDG_CACHE_HOME to a folder of "
        "yours to keep it",
        cache,
        folder,
    )
