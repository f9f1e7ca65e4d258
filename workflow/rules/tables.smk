"""Comparison tables of the whole grid."""



def table(name):
    """The files of one table; snakemake --report shows the html one."""
    stem, caption = f"<results>/tables/{name}", f"../report/{name}.rst"
    html = report(f"{stem}.html", category="Tables", caption=caption)
    return [html, f"{stem}.csv", f"{stem}.md", f"{stem}.tex"]


# The numbers of the papers, if any dataset of the grid is theirs.
PUBLISHED = (
    workflow.source_path("../../config/published/denoiseg.csv")
    if GRID.published_datasets
    else []
)


rule aggregate:
    input:
        metrics=[run_path(run, "metrics.tsv") for run in GRID.scored_runs],
        published=PUBLISHED,
    output:
        metrics="<results>/tables/metrics.csv",
        tables=[file for name in GRID.tables for file in table(name)],
    log:
        "<logs>/aggregate.log",
    params:
        study=GRID.comparison,
    script:
        "../scripts/aggregate.py"


rule measure_costs:
    input:
        models=[run_path(run, "model.pt") for run in GRID.runs],
        predictions=[run_path(run, "predictions") for run in GRID.runs],
    output:
        multiext("<benchmarks>/costs", ".html", ".csv", ".md", ".tex"),
    log:
        "<logs>/measure_costs.log",
    localrule: True
    script:
        "../scripts/measure_costs.py"
