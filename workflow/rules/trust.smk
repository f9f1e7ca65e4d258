"""Reliability of the results, and images to annotate next."""


rule trust:
    input:
        split=FIRST_SPLIT,
        prepared="<results>/data/{dataset}/prepared",
        noisy="<results>/data/{dataset}/noisy/{noise}",
        metrics="<results>/tables/metrics.csv",
        images=of_candidates("labels", images_read_by),
        models=of_candidates("labels", model_of),
        labels=of_candidates("labels", predictions_of),
        denoised=of_candidates("denoised", predictions_of),
    output:
        csv="<results>/trust/{dataset}_{noise}.csv",
        json="<results>/trust/{dataset}_{noise}.json",
        objects="<results>/trust/objects/{dataset}_{noise}.csv",
        residuals=figure("<results>/figures/{dataset}/residuals_{noise}", "residuals"),
        diagnostics=figure(
            "<results>/figures/{dataset}/diagnostics_{noise}", "diagnostics"
        ),
    log:
        "<logs>/{dataset}/trust/{noise}.log",
    benchmark:
        "<benchmarks>/{dataset}/trust/{noise}.tsv"
    conda:
        "../../envs/denoiseg_flow.yaml"
    threads: 1
    resources:
        gpu=lambda wildcards: gpu(GRID.predicts_probabilities(**wildcards)),
        mem_mb=memory("trust", ESTIMATES.examination, examined),
        runtime=minutes("trust", ESTIMATES.examination, examined),
    params:
        about=lambda wildcards: f"{wildcards.dataset}, noise {wildcards.noise}",
        captions=lambda wildcards: {
            name: caption(name) for name in ("residuals", "diagnostics")
        },
        device=config["device"],
        labels=of_candidates("labels", Run.as_dict),
        denoised=of_candidates("denoised", Run.as_dict),
    script:
        "../scripts/trust.py"


rule suggest:
    input:
        split=FIRST_SPLIT,
        noisy="<results>/data/{dataset}/noisy/{noise}",
        metrics="<results>/tables/metrics.csv",
        images=of_candidates("probabilities", images_read_by),
        models=of_candidates("probabilities", model_of),
    output:
        csv="<results>/suggestions/{dataset}_{noise}.csv",
        figure=figure("<results>/figures/{dataset}/suggestions_{noise}"),
    log:
        "<logs>/{dataset}/suggest/{noise}.log",
    benchmark:
        "<benchmarks>/{dataset}/suggest/{noise}.tsv"
    conda:
        "../../envs/denoiseg_flow.yaml"
    threads: 1
    resources:
        gpu=gpu(True),
        mem_mb=memory("suggest", ESTIMATES.examination, candidates("probabilities")),
        runtime=minutes("suggest", ESTIMATES.examination, candidates("probabilities")),
    params:
        caption=lambda wildcards: caption("suggestions"),
        device=config["device"],
        runs=of_candidates("probabilities", Run.as_dict),
    script:
        "../scripts/suggest.py"
