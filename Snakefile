"""DenoiSeg-Flow: denoise and segment microscopy images of which only a few are annotated.

Start with config/README.md for what can be studied, and README.md for how to run it.
"""

from snakemake.utils import min_version

min_version("9.19")


include: "workflow/rules/package.smk"


# Found beside this file, whatever the working directory is.
configfile: workflow.source_path("config/config.yaml")


include: "workflow/rules/common.smk"
include: "workflow/rules/start.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/sources.smk"
include: "workflow/rules/shown.smk"
include: "workflow/rules/new_images.smk"


# Used with --software-deployment-method apptainer only.
container: config["container"]


# Everything moves with one of them: snakemake --config 'pathvars={results: /scratch/study}'
pathvars:
    logs="<results>/logs",
    benchmarks="<results>/benchmarks",
    run=RUN,
    run_logs=f"<logs>/{AXES}",


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/predict_run.smk"
include: "workflow/rules/predict.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/trust.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/plan.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        "<results>/report.html",
        rules.aggregate.output,
        FIGURES,
        in_settings("<results>/checks/{dataset}_{noise}.html"),
    localrule: True
