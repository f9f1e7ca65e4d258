"""Figures and the report."""


def figure(path, caption):
    """The svg and png file of a figure; snakemake --report shows the png."""
    png = report(f"{path}.png", category="Figures", caption=caption)
    return {"svg": f"{path}.svg", "png": png}


def figures(dataset):
    """All figures of a dataset. Noise does not compress: panels are pictures, not drawings."""
    folder = f"<results>/figures/{dataset}"
    curves = [f"{folder}/{name}.svg" for name in GRID.figures(dataset)]
    return curves + [f"{folder}/panel_{noise}.png" for noise in config["grid"]["noises"]]


FIGURES = [path for dataset in config["grid"]["datasets"] for path in figures(dataset)]


def example_predictions(wildcards):
    """Predictions of one run of every method."""
    runs = GRID.example_runs(wildcards.dataset, wildcards.noise)
    return [run_path(run, "predictions") for run in runs]


rule plot:
    input:
        metrics="<results>/tables/metrics.csv",
        histories=lambda wildcards: [
            run_path(run, "history.tsv")
            for run in GRID.runs
            if run.dataset == wildcards.dataset
        ],
    output:
        **figure(
            "<results>/figures/{dataset}/{figure}", "../report/figure.rst"
        ),
    log:
        "<logs>/{dataset}/plot/{figure}.log",
    params:
        methods=GRID.method_names,
        noises=config["grid"]["noises"],
    wildcard_constraints:
        figure="label_curves|denoising_levels|training_curves",
    script:
        "../scripts/plot.py"


rule plot_panel:
    input:
        metrics="<results>/tables/metrics.csv",
        prepared="<results>/data/{dataset}/prepared",
        noisy="<results>/data/{dataset}/noisy/{noise}",
        predictions=example_predictions,
    output:
        **figure(
            "<results>/figures/{dataset}/panel_{noise}", "../report/panel.rst"
        ),
    log:
        "<logs>/{dataset}/plot_panel/{noise}.log",
    params:
        runs=lambda wildcards: [
            run.as_dict()
            for run in GRID.example_runs(wildcards.dataset, wildcards.noise)
        ],
    script:
        "../scripts/plot_panel.py"


# The runs that the report shows image by image, one for each dataset and noise level.
SHOWN_RUNS = [
    GRID.showcase_run(dataset, noise)
    for dataset in config["grid"]["datasets"]
    for noise in config["grid"]["noises"]
]


rule report:
    input:
        metrics="<results>/tables/metrics.csv",
        published=PUBLISHED,
        costs="<benchmarks>/costs.csv",
        figures=FIGURES,
        prepared=[f"<results>/data/{run.dataset}/prepared" for run in SHOWN_RUNS],
        noisy=[f"<results>/data/{run.dataset}/noisy/{run.noise}" for run in SHOWN_RUNS],
        predictions=[run_path(run, "predictions") for run in SHOWN_RUNS],
    output:
        "<results>/report.html",
    log:
        "<logs>/report.log",
    params:
        study=GRID.comparison,
        title=config["title"],
        notes=config["notes"],
        runs=[run.as_dict() for run in SHOWN_RUNS],
    script:
        "../scripts/report.py"
