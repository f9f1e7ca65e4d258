"""Comparison tables of the whole study."""


rule aggregate:
    input:
        **PUBLISHED,
        metrics=[run_path(run, "metrics.tsv") for run in GRID.scored_runs],
    output:
        metrics="<results>/tables/metrics.csv",
        tables=[file for name in contents.tables(GRID) for file in table(name)],
    log:
        "<logs>/aggregate.log",
    benchmark:
        "<benchmarks>/aggregate.tsv"
    conda:
        "../../envs/denoiseg_flow.yaml"
    resources:
        mem_mb=memory_for_scores,
    params:
        study=lambda wildcards: contents.comparison(GRID),
    script:
        "../scripts/aggregate.py"


rule measure_costs:
    input:
        models=[model_of(run) for run in GRID.runs],
        predictions=[predictions_of(run) for run in GRID.runs],
    output:
        multiext("<benchmarks>/costs", ".html", ".csv", ".md", ".tex"),
    log:
        "<logs>/measure_costs.log",
    localrule: True
    conda:
        "../../envs/denoiseg_flow.yaml"
    script:
        "../scripts/measure_costs.py"
