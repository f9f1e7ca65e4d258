"""Settings and fixtures for all tests."""

import threading
from http.server import ThreadingHTTPServer

import pytest
from hypothesis import settings

from denoiseg_flow.jobs import gpu_slots

# How long an example takes depends on what else the machine does.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(autouse=True)
def no_slot(monkeypatch):
    """This process, which never ends, keeps no GPU from the workflows that the tests start."""
    monkeypatch.setattr(gpu_slots, "visible_gpus", list)


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the tests that take minutes as well")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: pytest --long"))


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
