"""The package that the rules import, which a deployed workflow or a module may lack."""

# Also in envs/denoiseg_flow.yaml.
VERSION = "0.1.0"

try:
    from denoiseg_flow.version import __version__
except ImportError:
    __version__ = None


def check_package(found):
    """Check that the package of this version, or a later one that corrects it, is installed."""
    numbers = [
        tuple(map(int, each.split(".")[:3])) for each in (found or "0.0.0", VERSION)
    ]
    if numbers[0] < numbers[1] or numbers[0][:2] != numbers[1][:2]:
        there = (
            f"denoiseg-flow {found} is installed" if found else "it is not installed"
        )
        raise WorkflowError(
            f"this workflow needs the Python package denoiseg-flow {VERSION}, but {there}; run "
            f"`python -m pip install denoiseg-flow=={VERSION}`, or in a clone of the repository "
            "`python -m pip install -c constraints.txt -e .`"
        )


check_package(__version__)
