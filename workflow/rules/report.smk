"""Figures and the report."""


rule plot:
    input:
        metrics="<results>/tables/metrics.csv",
        histories=lambda wildcards: [
            run_path(run, "history.tsv")
            for run in GRID.runs
            if run.dataset == wildcards.dataset
        ],
        models=lambda wildcards: [
            model_of(run)
            for run in contents.precision_runs(GRID, wildcards.dataset)
            if wildcards.figure == "precision"
        ],
    output:
        figure("<results>/figures/{dataset}/{figure}"),
    log:
        "<logs>/{dataset}/plot/{figure}.log",
    benchmark:
        "<benchmarks>/{dataset}/plot/{figure}.tsv"
    wildcard_constraints:
        figure="label_curves|denoising_levels|training_curves|calibration|training_sizes|precision",
    conda:
        "../../envs/denoiseg_flow.yaml"
    resources:
        mem_mb=memory_for_scores,
    params:
        methods=GRID.method_names,
        noises=contents.noise_descriptions(GRID),
        denoisers=contents.calibrated_denoisers(GRID),
        sizes=lambda wildcards: contents.training_sizes(GRID, wildcards.dataset),
        caption=lambda wildcards: caption(wildcards.figure),
    script:
        "../scripts/plot.py"


rule plot_panel:
    input:
        metrics="<results>/tables/metrics.csv",
        prepared="<results>/data/{dataset}/prepared",
        noisy="<results>/data/{dataset}/noisy/{noise}",
        predictions=lambda wildcards: [
            predictions_of(run) for run in example_runs(wildcards)
        ],
    output:
        figure("<results>/figures/{dataset}/panel_{noise}"),
    log:
        "<logs>/{dataset}/plot_panel/{noise}.log",
    benchmark:
        "<benchmarks>/{dataset}/plot_panel/{noise}.tsv"
    conda:
        "../../envs/denoiseg_flow.yaml"
    resources:
        mem_mb=memory_for_scores,
    params:
        runs=lambda wildcards: [run.as_dict() for run in example_runs(wildcards)],
        caption=lambda wildcards: caption("panel"),
    script:
        "../scripts/plot_panel.py"


rule report:
    input:
        **PUBLISHED,
        metrics="<results>/tables/metrics.csv",
        costs="<benchmarks>/costs.csv",
        figures=FIGURES,
        prepared=in_settings("<results>/data/{dataset}/prepared"),
        noisy=in_settings("<results>/data/{dataset}/noisy/{noise}"),
        predictions=[
            predictions_of(run)
            for setting in GRID.settings
            for run in GRID.examined(**setting)
        ],
        checks=in_settings("<results>/checks/{dataset}_{noise}.json"),
        findings=in_settings("<results>/trust/{dataset}_{noise}.json"),
        images=in_settings("<results>/trust/{dataset}_{noise}.csv"),
        residuals=in_settings("<results>/figures/{dataset}/residuals_{noise}.png"),
        diagnostics=in_settings("<results>/figures/{dataset}/diagnostics_{noise}.svg"),
        suggestions=in_settings(
            "<results>/suggestions/{dataset}_{noise}.csv", WITH_PROBABILITIES
        ),
        thumbnails=in_settings(
            "<results>/figures/{dataset}/suggestions_{noise}.png", WITH_PROBABILITIES
        ),
    output:
        "<results>/report.html",
    log:
        "<logs>/report.log",
    benchmark:
        "<benchmarks>/report.tsv"
    conda:
        "../../envs/denoiseg_flow.yaml"
    resources:
        mem_mb=memory_for_scores,
    params:
        # As functions, because Snakemake would look for wildcards in plain text.
        study=lambda wildcards: contents.comparison(GRID),
        title=lambda wildcards: config["title"],
        notes=lambda wildcards: contents.notes(GRID),
    script:
        "../scripts/report.py"
