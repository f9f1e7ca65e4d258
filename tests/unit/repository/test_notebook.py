"""The notebook of the tutorials as it is stored; tests/workflow runs it with --long."""

import ast
import importlib
import re
import shlex

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from denoiseg_flow import cli


@pytest.fixture(scope="module")
def path(root):
    return root / "docs/tutorials/own_images.ipynb"


@pytest.fixture(scope="module")
def cells(path):
    """The code cells."""
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def tree(cells):
    """What Python runs, after IPython has replaced its own commands."""
    code = "".join(TransformerManager().transform_cell(cell.source) for cell in cells)
    return ast.parse(code)


def test_all_names_of_the_package_exist(tree):
    used = [
        ("denoiseg_flow", node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "denoiseg_flow"
    ]
    imported = [
        (node.module, name.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("denoiseg_flow")
        for name in node.names
    ]
    assert used and imported
    for module, name in used + imported:
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_all_commands_are_accepted(cells):
    commands = re.findall(
        r"^!denoiseg-flow ([^>\n]*)", "\n".join(cell.source for cell in cells), re.M
    )
    read = [cli.read_arguments(shlex.split(command)) for command in commands]
    assert len(read) >= 3


def test_it_is_stored_as_it_ran_from_top_to_bottom(path, cells):
    """With small pictures, without errors, and without paths of the computer that it ran on."""
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) > 5
    assert not re.search(r"[\"' ](/(tmp|home|root|work|Users)/|C:\\)", path.read_text())
    assert path.stat().st_size < 500_000
