"""Plan and interim results: `snakemake plan` and `snakemake tables_partial`."""

SNAKEFILE = workflow.current_basedir.join("../../Snakefile")
FOLDERS = {
    name: workflow.pathvars.apply(f"<{name}>")
    for name in ("results", "logs", "benchmarks")
}


# Without input and output files, both rules run whenever they are requested, and never wait for a
# running study.
rule plan:
    log:
        "<logs>/plan.log",
    localrule: True
    conda:
        "../../envs/denoiseg_flow.yaml"
    params:
        snakefile=SNAKEFILE.get_path_or_uri(secret_free=False),
        folders=FOLDERS,
        triggers=lambda wildcards: sorted(map(str, workflow.rerun_triggers)),
    script:
        "../scripts/plan.py"


rule tables_partial:
    log:
        "<logs>/tables_partial.log",
    localrule: True
    conda:
        "../../envs/denoiseg_flow.yaml"
    params:
        **PUBLISHED,
        snakefile=SNAKEFILE.get_path_or_uri(secret_free=False),
        folders=FOLDERS,
        triggers=lambda wildcards: sorted(map(str, workflow.rerun_triggers)),
        comparison=contents.comparison(GRID),
    script:
        "../scripts/tables_partial.py"
