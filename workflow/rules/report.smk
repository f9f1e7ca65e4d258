"""Figures and the report."""


def figure(path, caption):
    """The svg and png file of a figure; snakemake --report shows the svg."""
    caption = f"../report/{caption}.rst"
    svg = report(f"{path}.svg", category="Figures", caption=caption)
    return {"svg": svg, "png": f"{path}.png"}


def figures(suffix):
    """All figures of the study, in one format."""
    return [
        f"<results>/figures/{dataset}/{name}.{suffix}"
        for dataset in config["grid"]["datasets"]
        for name in GRID.figures(dataset)
        + [f"panel_{noise}" for noise in config["grid"]["noises"]]
    ]


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
        **figure("<results>/figures/{dataset}/{figure}", "figure"),
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
        **figure("<results>/figures/{dataset}/panel_{noise}", "panel"),
    log:
        "<logs>/{dataset}/plot_panel/{noise}.log",
    params:
        runs=lambda wildcards: [
            run.as_dict()
            for run in GRID.example_runs(wildcards.dataset, wildcards.noise)
        ],
    script:
        "../scripts/plot_panel.py"


rule report:
    input:
        tables=rules.aggregate.output.tables,
        costs="<benchmarks>/costs.html",
        figures=figures("svg"),
    output:
        "<results>/report.html",
    log:
        "<logs>/report.log",
    script:
        "../scripts/report.py"
