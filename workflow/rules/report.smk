"""Figures and the report."""


rule plot:
    input:
        metrics="<results>/tables/metrics.csv",
        histories=lambda wildcards: [
            run_path(run, "history.tsv")
            for run in GRID.runs
            if run.dataset == wildcards.dataset
        ],
    output:
        **figure("<results>/figures/{dataset}/{figure}", "../report/figure.rst"),
    log:
        "<logs>/{dataset}/plot/{figure}.log",
    wildcard_constraints:
        figure="label_curves|denoising_levels|training_curves|calibration|training_sizes",
    conda:
        "../../envs/denoiseg_flow.yaml"
    params:
        methods=GRID.method_names,
        noises=GRID.noise_descriptions,
        denoisers=GRID.calibrated_denoisers,
        sizes=lambda wildcards: GRID.training_sizes(wildcards.dataset),
    script:
        "../scripts/plot.py"


rule plot_panel:
    input:
        metrics="<results>/tables/metrics.csv",
        prepared="<results>/data/{dataset}/prepared",
        noisy="<results>/data/{dataset}/noisy/{noise}",
        predictions=example_predictions,
    output:
        **figure("<results>/figures/{dataset}/panel_{noise}", "../report/panel.rst"),
    log:
        "<logs>/{dataset}/plot_panel/{noise}.log",
    conda:
        "../../envs/denoiseg_flow.yaml"
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
        **PUBLISHED,
        metrics="<results>/tables/metrics.csv",
        costs="<benchmarks>/costs.csv",
        figures=FIGURES,
        prepared=[f"<results>/data/{run.dataset}/prepared" for run in SHOWN_RUNS],
        noisy=[f"<results>/data/{run.dataset}/noisy/{run.noise}" for run in SHOWN_RUNS],
        predictions=[run_path(run, "predictions") for run in SHOWN_RUNS],
    output:
        "<results>/report.html",
    log:
        "<logs>/report.log",
    conda:
        "../../envs/denoiseg_flow.yaml"
    params:
        study=GRID.comparison,
        title=config["title"],
        notes=GRID.notes,
        runs=[run.as_dict() for run in SHOWN_RUNS],
    script:
        "../scripts/report.py"
