"""What napari reads about the plugin before it imports any of it."""

import ast
import tomllib

import yaml


def test_the_manifest_names_what_there_is(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    ((name, place),) = project["entry-points"]["napari.manifest"].items()
    module, file = place.split(":")
    manifest = yaml.safe_load((root / "src" / module.replace(".", "/") / file).read_text())
    assert manifest["name"] == name == project["name"]
    commands = {each["id"]: each["python_name"] for each in manifest["contributions"]["commands"]}
    assert {each["command"] for each in manifest["contributions"]["widgets"]} == set(commands)
    for python_name in commands.values():
        module, defined = python_name.split(":")
        code = (root / "src" / f"{module.replace('.', '/')}.py").read_text()
        assert defined in {getattr(node, "name", None) for node in ast.parse(code).body}
