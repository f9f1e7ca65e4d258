"""What tests of faults share."""

import pytest
from study import Study, undisturbed_study


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Study:
    """The study as it comes out when nothing disturbs it."""
    study = undisturbed_study(tmp_path_factory.mktemp("faults") / "undisturbed")
    yield study
    study.server.close()
