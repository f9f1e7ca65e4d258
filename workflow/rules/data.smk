"""Data: from any source to canonical images, splits, noisy images and quality checks."""


rule fetch:
    input:
        unpack(archive_in_storage),
    output:
        archive="<results>/data/{dataset}/archive.zip",
        raw=directory("<results>/data/{dataset}/raw"),
    log:
        "<logs>/{dataset}/fetch.log",
    benchmark:
        "<benchmarks>/{dataset}/fetch.tsv"
    wildcard_constraints:
        dataset=either(from_source("remote")),
    localrule: True
    conda:
        "../../envs/denoiseg_flow.yaml"
    params:
        url=lambda wildcards: config["datasets"][wildcards.dataset]["url"],
        sha256=lambda wildcards: config["datasets"][wildcards.dataset].get("sha256"),
    script:
        "../scripts/fetch.py"


rule simulate:
    output:
        raw=directory("<results>/data/{dataset}/raw"),
    log:
        "<logs>/{dataset}/simulate.log",
    benchmark:
        "<benchmarks>/{dataset}/simulate.tsv"
    wildcard_constraints:
        dataset=either(from_source("simulate")),
    conda:
        "../../envs/denoiseg_flow.yaml"
    params:
        dataset=lambda wildcards: config["datasets"][wildcards.dataset],
    script:
        "../scripts/simulate.py"


rule prepare:
    input:
        unpack(source_folders),
    output:
        prepared=directory("<results>/data/{dataset}/prepared"),
    log:
        "<logs>/{dataset}/prepare.log",
    benchmark:
        "<benchmarks>/{dataset}/prepare.tsv"
    conda:
        "../../envs/denoiseg_flow.yaml"
    resources:
        mem_mb=memory("prepare", ESTIMATES.handling, dataset_of),
        runtime=minutes("prepare", ESTIMATES.handling, dataset_of),
    params:
        dataset=lambda wildcards: config["datasets"][wildcards.dataset],
    script:
        "../scripts/prepare.py"


rule split:
    input:
        unpack(split_file),
        prepared="<results>/data/{dataset}/prepared",
    output:
        split="<results>/data/{dataset}/split/seed{seed}.tsv",
    log:
        "<logs>/{dataset}/split/seed{seed}.log",
    localrule: True
    conda:
        "../../envs/denoiseg_flow.yaml"
    params:
        split=lambda wildcards: split_of(config["datasets"], wildcards.dataset),
        n_train=lambda wildcards: config["datasets"][wildcards.dataset].get("n_train"),
    script:
        "../scripts/split.py"


rule add_noise:
    input:
        prepared="<results>/data/{dataset}/prepared",
    output:
        noisy=directory("<results>/data/{dataset}/noisy/{noise}"),
    log:
        "<logs>/{dataset}/add_noise/{noise}.log",
    benchmark:
        "<benchmarks>/{dataset}/add_noise/{noise}.tsv"
    conda:
        "../../envs/denoiseg_flow.yaml"
    resources:
        mem_mb=memory("add_noise", ESTIMATES.handling, dataset_of),
        runtime=minutes("add_noise", ESTIMATES.handling, dataset_of),
    params:
        level=lambda wildcards: config["noises"][wildcards.noise],
    script:
        "../scripts/add_noise.py"


rule check:
    input:
        split=FIRST_SPLIT,
        prepared="<results>/data/{dataset}/prepared",
        noisy="<results>/data/{dataset}/noisy/{noise}",
    output:
        html="<results>/checks/{dataset}_{noise}.html",
        csv="<results>/checks/{dataset}_{noise}.csv",
        json="<results>/checks/{dataset}_{noise}.json",
    log:
        "<logs>/{dataset}/check/{noise}.log",
    benchmark:
        "<benchmarks>/{dataset}/check/{noise}.tsv"
    # Before the trainings, which take longer: the warnings should appear in time.
    priority: 1
    conda:
        "../../envs/denoiseg_flow.yaml"
    resources:
        mem_mb=memory("check", ESTIMATES.handling, dataset_of),
        runtime=minutes("check", ESTIMATES.handling, dataset_of),
    script:
        "../scripts/check.py"
