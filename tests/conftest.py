"""Settings and fixtures for all tests."""

import gc
import os
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import settings

from denoiseg_flow.jobs import gpu_slots

TESTS = Path(__file__).parent
# Folders of tests that start Snakemake, SLURM, a browser or other programs that take seconds.
INTEGRATION = {"faults", "slurm", "workflow"}

# Hundreds of processes start here; each would compile the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Python looks for garbage cycles again and again while millions of objects of large packages are
# loaded, all of which stay: a fourth of the time that it takes to collect the tests.
gc.set_threshold(50_000)

# How long an example takes depends on what else the machine does.
settings.register_profile("short", deadline=None, max_examples=25)
settings.register_profile("long", deadline=None, max_examples=300)


@pytest.fixture(autouse=True)
def no_slot(monkeypatch):
    """This process, which never ends, keeps no GPU from the workflows that the tests start."""
    monkeypatch.setattr(gpu_slots, "visible_gpus", list)


def pytest_addoption(parser):
    help = "run the tests that take minutes as well, and more examples of each property"
    parser.addoption("--long", action="store_true", help=help)


def pytest_configure(config):
    settings.load_profile("long" if config.getoption("--long") else "short")


def pytest_collection_modifyitems(config, items):
    """Mark tests by folder, and start with the files that take longest."""
    items.sort(key=lambda item: _folder(item) not in INTEGRATION)
    for item in items:
        if _folder(item) in INTEGRATION:
            item.add_marker(pytest.mark.integration)
        if item.get_closest_marker("long") and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: pytest --long"))


def pytest_collection_finish():
    """Whatever is loaded by now stays, and need not be looked through again."""
    gc.freeze()


def _folder(item):
    """Return the folder in tests that a test lies in."""
    return item.path.relative_to(TESTS).parts[0]


@pytest.fixture
def serve(monkeypatch):
    """Return a function that starts a web server on loopback with the given request handler."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    started = []

    def start(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join()
