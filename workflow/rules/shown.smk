"""What the report shows: tables, figures, and the runs of which one is examined."""

from denoiseg_flow.reporting import captions


def in_settings(path, settings=GRID.settings):
    """The file of every dataset and noise level."""
    return [path.format(**setting) for setting in settings]


SEGMENTED = [setting for setting in GRID.settings if GRID.segments(**setting)]


def candidates(purpose):
    """The runs of which one is examined: which one, only their scores can tell."""

    def runs(wildcards):
        return GRID.candidates(wildcards.dataset, wildcards.noise, purpose)

    return runs


def of_candidates(purpose, what):
    """What each of them has, such as a file, in the same order."""
    return lambda wildcards: [what(run) for run in candidates(purpose)(wildcards)]


def examined(wildcards):
    """All of them."""
    return GRID.examined(wildcards.dataset, wildcards.noise)


def example_runs(wildcards):
    """One run of every method."""
    return GRID.example_runs(wildcards.dataset, wildcards.noise)


def table(name):
    """The files of one table; snakemake --report shows the html one, which has its caption."""
    stem = f"<results>/tables/{name}"
    html = report(f"{stem}.html", category="Tables")
    return [html, f"{stem}.csv", f"{stem}.md", f"{stem}.tex"]


def published(table, name):
    """The numbers of the papers that a table needs, if the study makes that table."""
    file = f"../../config/published/{name}.csv"
    return workflow.source_path(file) if table in contents.tables(GRID) else []


PUBLISHED = {
    "published": published("published", "denoiseg"),
    "published_denoisers": published("paper", "denoisers"),
}


def figure(path, caption="figure"):
    """The png and svg file of a figure; snakemake --report shows the png.

    The caption is that in ``params.caption`` of its rule, or where a rule makes several figures,
    in ``params.captions``.
    """
    caption = f"../report/{caption}.rst"
    return [report(f"{path}.png", category="Figures", caption=caption), f"{path}.svg"]


def caption(figure):
    """What stands below a kind of figure."""
    return captions.FIGURES[figure][1]


def figures(dataset):
    """All figures of a dataset. Noise does not compress: panels are pictures, not drawings."""
    folder = f"<results>/figures/{dataset}"
    curves = [f"{folder}/{name}.svg" for name in contents.figures(GRID, dataset)]
    return curves + [
        f"{folder}/panel_{noise}.png" for noise in config["grid"]["noises"]
    ]


FIGURES = [path for dataset in config["grid"]["datasets"] for path in figures(dataset)]
