"""Prediction of a study's images: denoised images, class probabilities and instance labels."""


rule predict_run:
    input:
        split="<results>/data/{dataset}/split/seed{seed}.tsv",
        images=input_images,
        model="<run>/model.pt",
    output:
        predictions=directory("<run>/predictions"),
    log:
        "<run_logs>/predict_run.log",
    benchmark:
        f"<benchmarks>/predict_run/{AXES}.tsv"
    conda:
        "../../envs/denoiseg_flow.yaml"
    threads: 1
    resources:
        gpu=gpu_of_method,
        mem_mb=memory("predict_run", ESTIMATES.prediction),
        runtime=minutes("predict_run", ESTIMATES.prediction),
    params:
        subsets=lambda wildcards: GRID.predicted_subsets(wildcards.method),
        judged=lambda wildcards: GRID.judged_subsets(
            wildcards.dataset, wildcards.method
        ),
        save_probabilities=config["save_probabilities"],
        device=config["device"],
        tile=config["tile"],
        revision=REVISION,
    script:
        "../scripts/predict_run.py"
