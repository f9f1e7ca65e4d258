"""Training: one rule for every method."""


rule simulate_rehearsal:
    output:
        images="<results>/data/rehearsal/{pretrained}.npz",
    log:
        "<logs>/rehearsal/{pretrained}.log",
    benchmark:
        "<benchmarks>/rehearsal/{pretrained}.tsv"
    wildcard_constraints:
        pretrained=either(PRETRAINED),
    # Other jobs wait for it.
    priority: 1
    conda:
        "../../envs/denoiseg_flow.yaml"
    params:
        patch_shape=lambda wildcards: list(GRID.largest_patch(wildcards.pretrained)),
        revision=REVISION,
    script:
        "../scripts/simulate_rehearsal.py"


rule train:
    input:
        split="<results>/data/{dataset}/split/seed{seed}.tsv",
        prepared="<results>/data/{dataset}/prepared",
        images=input_images,
        # Stored in the model file, which is then all that is needed to predict new images.
        input_model=lambda wildcards: model_of(GRID.input_run(Run.of(wildcards))),
        init=init_of,
        rehearsal=rehearsal_of,
    output:
        model="<run>/model.pt",
        history="<run>/history.tsv",
    log:
        "<run_logs>/train.log",
    benchmark:
        f"<benchmarks>/train/{AXES}.tsv"
    conda:
        "../../envs/denoiseg_flow.yaml"
    # One thread each: a study has more trainings than cores, and the numbers do not depend on the
    # number of cores.
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
        init_checksum=init_checksum,
        device=config["device"],
        revision=REVISION,
    script:
        "../scripts/train.py"
