"""The notebook of the tutorials runs from top to bottom."""

import os
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest


@pytest.mark.long
def test_notebook_runs(repo, tmp_path, monkeypatch):
    """Its commands are those of this environment; the last cells need what all others made."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(repo / "docs/tutorials/own_images.ipynb", 4)
    nbclient.NotebookClient(
        notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    study = tmp_path / "study"
    assert (study / "results/report.html").is_file()
    assert len(list((study / "round1/masks").iterdir())) == 2
