"""What a wheel holds besides the package: the workflow, for those who have no clone."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WORKFLOW = ("Snakefile", "config", "envs", "examples", "profiles", "workflow")


class WorkflowHook(BuildHookInterface):
    """Puts the workflow into the folder ``share`` of the package, see ``launch.py``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files, except to an editable installation: that one uses those of the clone."""
        if version != "editable":
            build_data["force_include"].update(
                {name: f"denoiseg_flow/share/{name}" for name in WORKFLOW}
            )
