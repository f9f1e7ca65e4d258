"""Training: one rule for every method."""


rule train:
    input:
        split="<results>/data/{dataset}/split/seed{seed}.tsv",
        prepared="<results>/data/{dataset}/prepared",
        images=input_images,
        # Kept with the model, so that its file is all that new images need.
        input_model=lambda wildcards: run_path(
            GRID.input_run(Run.of(wildcards)), "model.pt"
        ),
        init=lambda wildcards: run_path(GRID.init_run(Run.of(wildcards)), "model.pt"),
    output:
        model="<run>/model.pt",
        history="<run>/history.tsv",
    log:
        "<run_logs>/train.log",
    benchmark:
        "<benchmarks>/train/{dataset}/{noise}/{method}/annotated{n_annotated}/seed{seed}.tsv"
    conda:
        "../../envs/denoiseg_flow.yaml"
    # One thread each: a grid has more trainings than cores, and the sums of a training do not
    # depend on how many cores the machine has.
    threads: 1
    resources:
        gpu=gpu_of_method,
        mem_mb=memory("train", ESTIMATES.training),
        runtime=minutes("train", ESTIMATES.training),
    params:
        method=lambda wildcards: as_dict(GRID.methods[wildcards.method]),
        recipe=lambda wildcards: recipe(wildcards.method),
        level=lambda wildcards: GRID.noise_level(wildcards.method, wildcards.noise),
        subsets=lambda wildcards: GRID.own_subsets(wildcards.method),
        device=config["device"],
        revision=REVISION,
    script:
        "../scripts/train.py"
