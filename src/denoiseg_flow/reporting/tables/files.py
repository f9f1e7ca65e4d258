"""Write a table as csv (tidy, for programs) and as html, md and tex (wide, for readers).

The same table always gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from pathlib import Path

import pandas as pd

from denoiseg_flow.reporting.tables.layout import Panel, Table

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; color: #1b1f24; background: #fff; margin: 1.5rem; }}
h1 {{ font-size: 1.35rem; margin: 0 0 .4rem; }}
p {{ max-width: 70ch; margin: 0 0 1.2rem; }}
.panel {{ overflow-x: auto; margin-bottom: 1.8rem; }}
table {{ border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; }}
caption {{ text-align: left; font-weight: 600; padding: .2rem 0 .4rem; }}
th, td {{ padding: .28rem .8rem; text-align: right; white-space: nowrap; }}
th {{ font-weight: 500; }}
thead th {{ border-bottom: 1px solid; }}
th[scope="row"], th.row {{ text-align: left; }}
td {{ font-variant-numeric: tabular-nums; }}
tbody tr:nth-child(even) {{ background: #f3f5f7; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{caption}</p>
{panels}
</body>
</html>
"""

_TEX = {
    "\\": r"\textbackslash{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    # LaTeX would read a [ at the start of a table row as an argument of the preceding \\.
    "[": "{[}",
    "]": "{]}",
}


def write_table(table: Table, stem: Path) -> list[Path]:
    """Write ``<stem>.csv``, ``.html``, ``.md`` and ``.tex``.

    Parameters
    ----------
    table
        The csv file contains its data with six significant digits, the other files its panels.
    stem
        Path without suffix; its folder is created.

    Returns
    -------
    list of Path
        The four files.
    """
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for ending, render in _WRITERS.items():
        path = stem.with_name(f"{stem.name}.{ending}")
        path.write_text(render(table), encoding="utf-8", newline="\n")
        paths.append(path)
    return paths


def to_csv(table: Table) -> str:
    """Return the tidy data as csv: floats with six significant digits, NaN as an empty field."""
    data = table.data.copy()
    for column in data.select_dtypes("float"):
        data[column] = [
            "" if pd.isna(value) else f"{value:.6g}" for value in data[column].astype(float)
        ]
    return data.to_csv(index=False, lineterminator="\n")


def to_html(table: Table) -> str:
    """Return a complete page with one accessible html table per panel."""
    return _PAGE.format(
        title=escape(table.title),
        caption=escape(table.caption),
        panels=to_html_fragment(table),
    )


def to_html_fragment(table: Table) -> str:
    """Return only the html tables, escaped, for use in another page."""
    return "\n".join(map(_html_panel, table.panels))


def to_markdown(table: Table) -> str:
    """Return headings, caption and one pipe table per panel."""
    parts = [f"# {_markdown(table.title)}", _markdown(table.caption)]
    for panel in table.panels:
        align = [":--"] * len(panel.row_names) + ["--:"] * len(panel.columns)
        lines = [[_markdown(name) for name in (*panel.row_names, *panel.columns)], align]
        lines += _filled(panel, _markdown, "**{}**")
        rows = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        parts += [f"## {_markdown(panel.heading)}", rows]
    return "\n\n".join(parts) + "\n"


def to_tex(table: Table) -> str:
    """Return one LaTeX table environment per panel; needs the booktabs package."""
    parts = ["% Needs \\usepackage{booktabs}."]
    for panel in table.panels:
        header = [_tex(name) for name in (*panel.row_names, *panel.columns)]
        lines = [" & ".join(line) + r" \\" for line in _filled(panel, _tex, r"\textbf{{{}}}")]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering",
                    rf"\caption{{{_tex(panel.heading)}. {_tex(table.caption)}}}",
                    rf"\begin{{tabular}}{{{'l' * len(panel.row_names)}{'r' * len(panel.columns)}}}",
                    r"\toprule",
                    " & ".join(header) + r" \\",
                    r"\midrule",
                    *lines,
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


_WRITERS: dict[str, Callable[[Table], str]] = {
    "csv": to_csv,
    "html": to_html,
    "md": to_markdown,
    "tex": to_tex,
}


def _html_panel(panel: Panel) -> str:
    row_names = "".join(f'<th scope="col" class="row">{escape(n)}</th>' for n in panel.row_names)
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in panel.columns)
    body = "\n".join(
        "<tr>"
        + "".join(f'<th scope="row">{escape(header)}</th>' for header in headers)
        + "".join(
            f"<td><strong>{escape(cell.text)}</strong></td>"
            if cell.bold
            else f"<td>{escape(cell.text)}</td>"
            for cell in cells
        )
        + "</tr>"
        for headers, cells in panel.rows
    )
    return (
        f'<div class="panel">\n<table>\n<caption>{escape(panel.heading)}</caption>\n'
        f"<thead>\n<tr>{row_names}{columns}</tr>\n</thead>\n<tbody>\n{body}\n</tbody>\n"
        "</table>\n</div>"
    )


def _filled(panel: Panel, quote: Callable[[str], str], bold: str) -> list[list[str]]:
    """Return headers and cells of every row: quoted, bold cells wrapped in markup."""
    return [
        [quote(header) for header in headers]
        + [bold.format(quote(cell.text)) if cell.bold else quote(cell.text) for cell in cells]
        for headers, cells in panel.rows
    ]


def _markdown(text: str) -> str:
    text = escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in " ".join(text.split()))
