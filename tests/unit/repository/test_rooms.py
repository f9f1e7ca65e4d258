"""The packages of the project import each other in one direction only."""

import ast
import subprocess
import sys

import pytest

#: From the bottom to the top. A package imports only from those above it in this list; those on one
#: line do not know each other.
FLOORS = [
    {"errors", "version"},
    {"findings"},
    {"jobs"},
    {"data"},
    {"methods"},
    {"study", "models"},
    {"evaluation"},
    {"training", "reporting"},
    {"deployment"},
    {"api", "launch", "status"},
    {"cli", "napari_plugin"},
    {"__init__", "__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
APART = {("deployment", "reporting")}  # figures are not needed to use a model


@pytest.fixture(scope="module")
def package(root):
    return root / "src/denoiseg_flow"


def imported_rooms(path):
    """The packages that a file imports from, wherever the statement stands."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("denoiseg_flow.")}
    return rooms


def test_every_package_has_a_floor(package):
    rooms = {path.stem for path in package.glob("*.py")}
    rooms |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert rooms == set(FLOOR)


def test_imports_go_down(package):
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        for other in imported_rooms(path) - {room}:
            assert FLOOR[other] < FLOOR[room], f"{path} imports {other}"
            assert (room, other) not in APART, f"{path} imports {other}"


def test_planning_needs_no_torch(package):
    """A dry run and a plan start in a second, and on machines without PyTorch."""
    modules = [
        "denoiseg_flow",
        *(f"denoiseg_flow.study.{path.stem}" for path in package.glob("study/[a-z]*.py")),
    ]
    code = f"import sys, {', '.join(modules)}; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
