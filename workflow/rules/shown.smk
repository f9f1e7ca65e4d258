"""What the report shows: tables, figures and examined runs."""

from denoiseg_flow.reporting import captions


def in_settings(path, settings=GRID.settings):
    """Return the file of every combination of dataset and noise level."""
    return [path.format(**setting) for setting in settings]


WITH_PROBABILITIES = [
    setting for setting in GRID.settings if GRID.predicts_probabilities(**setting)
]


def candidates(purpose):
    """Return a function for the runs among which the scores decide which one is examined."""

    def runs(wildcards):
        return GRID.candidates(wildcards.dataset, wildcards.noise, purpose)

    return runs


def of_candidates(purpose, what):
    """Return a function for a property of each candidate, e.g. a file, in the same order."""
    return lambda wildcards: [what(run) for run in candidates(purpose)(wildcards)]


def examined(wildcards):
    """Return the candidates for any purpose."""
    return GRID.examined(wildcards.dataset, wildcards.noise)


def example_runs(wildcards):
    """Return one run per method."""
    return GRID.example_runs(wildcards.dataset, wildcards.noise)


def table(name):
    """Return the files of a table; snakemake --report shows the html file with its caption."""
    stem = f"<results>/tables/{name}"
    html = report(f"{stem}.html", category="Tables")
    return [html, f"{stem}.csv", f"{stem}.md", f"{stem}.tex"]


def published(table, name):
    """Return the file of published numbers for a table, if the study has that table."""
    file = f"../../config/published/{name}.csv"
    return workflow.source_path(file) if table in contents.tables(GRID) else []


PUBLISHED = {
    "published": published("published", "denoiseg"),
    "published_denoisers": published("paper", "denoisers"),
}


def figure(path, caption="figure"):
    """Return the png and svg file of a figure; snakemake --report shows the png.

    Its caption is in ``params.caption`` of the rule, or in ``params.captions`` of a rule with
    several figures.
    """
    caption = f"../report/{caption}.rst"
    return [report(f"{path}.png", category="Figures", caption=caption), f"{path}.svg"]


def caption(figure):
    """Return the caption of a kind of figure."""
    return captions.FIGURES[figure][1]


def figures(dataset):
    """Return all figures of a dataset: svg, but png for panels, as noise makes large svg files."""
    folder = f"<results>/figures/{dataset}"
    curves = [f"{folder}/{name}.svg" for name in contents.figures(GRID, dataset)]
    return curves + [
        f"{folder}/panel_{noise}.png" for noise in config["grid"]["noises"]
    ]


FIGURES = [path for dataset in config["grid"]["datasets"] for path in figures(dataset)]
