"""The HTML page with the quality checks of a dataset."""

from denoiseg_flow.evaluation.data_quality import DataChecks
from denoiseg_flow.reporting.html import render

_NOT_SHOWN = ["one_label"]  # a finding reports it


def checks_page(checks: DataChecks, title: str) -> str:
    """Return a complete HTML document; write it as UTF-8."""
    shown = checks.images.drop(columns=_NOT_SHOWN)
    cells = shown.map(lambda value: f"{value:.3g}" if isinstance(value, float) else str(value))
    rows = cells.where(shown.notna(), "").to_numpy().tolist()
    return render("checks.html.j2", title=title, checks=checks, columns=list(shown), rows=rows)
