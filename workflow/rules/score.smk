"""Scores of every run: one row per test image and metric."""


rule score:
    input:
        split="<results>/data/{dataset}/split/seed{seed}.tsv",
        prepared="<results>/data/{dataset}/prepared",
        noisy="<results>/data/{dataset}/noisy/{noise}",
        predictions="<run>/predictions",
    output:
        metrics="<run>/metrics.tsv",
    log:
        "<run_logs>/score.log",
    benchmark:
        f"<benchmarks>/score/{AXES}.tsv"
    conda:
        "../../envs/denoiseg_flow.yaml"
    resources:
        mem_mb=memory("score", ESTIMATES.handling, dataset_of),
        runtime=minutes("score", ESTIMATES.handling, dataset_of),
    script:
        "../scripts/score.py"
