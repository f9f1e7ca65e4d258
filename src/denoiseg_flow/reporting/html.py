"""HTML pages from the templates of the package."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **values: Any) -> str:
    """Return a page rendered from a template; all values except trusted markup are escaped."""
    environment = Environment(
        loader=PackageLoader("denoiseg_flow.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)
