"""From any source to canonical images, their split, and the noisy images of every level."""


rule fetch:
    output:
        archive="<results>/data/{dataset}/archive.zip",
        raw=directory("<results>/data/{dataset}/raw"),
    log:
        "<logs>/{dataset}/fetch.log",
    params:
        url=lambda wildcards: config["datasets"][wildcards.dataset]["url"],
        sha256=lambda wildcards: config["datasets"][wildcards.dataset].get("sha256"),
    localrule: True
    wildcard_constraints:
        dataset=either(from_source("remote")),
    script:
        "../scripts/fetch.py"


rule simulate:
    output:
        raw=directory("<results>/data/{dataset}/raw"),
    log:
        "<logs>/{dataset}/simulate.log",
    params:
        dataset=lambda wildcards: config["datasets"][wildcards.dataset],
    wildcard_constraints:
        dataset=either(from_source("simulate")),
    script:
        "../scripts/simulate.py"


def source_folders(wildcards):
    """What a dataset is prepared from: the user's folders, or what another rule made."""
    spec = config["datasets"][wildcards.dataset]
    if spec["source"] != "folder":
        return {"raw": f"<results>/data/{wildcards.dataset}/raw"}
    return {key: spec[key] for key in ("images", "masks", "clean") if spec.get(key)}


rule prepare:
    input:
        unpack(source_folders),
    output:
        prepared=directory("<results>/data/{dataset}/prepared"),
    log:
        "<logs>/{dataset}/prepare.log",
    benchmark:
        "<benchmarks>/{dataset}/prepare.tsv"
    params:
        dataset=lambda wildcards: config["datasets"][wildcards.dataset],
    script:
        "../scripts/prepare.py"


rule split:
    input:
        prepared="<results>/data/{dataset}/prepared",
    output:
        split="<results>/data/{dataset}/split/seed{seed}.tsv",
    log:
        "<logs>/{dataset}/split/seed{seed}.log",
    params:
        split=lambda wildcards: config["datasets"][wildcards.dataset]["split"],
    localrule: True
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
    params:
        level=lambda wildcards: config["noises"][wildcards.noise],
    script:
        "../scripts/add_noise.py"
