"""A trained model on new images: only if asked for, by `snakemake apply`."""


rule apply:
    input:
        model=applied_model,
        images=applied_images,
    output:
        # Nothing else is declared: Snakemake would delete it where one image of many fails, and
        # the next run would begin anew.
        finished=f"<results>/applied/{APPLIED}/.finished",
    log:
        f"<logs>/apply/{APPLIED}.log",
    conda:
        "../../envs/denoiseg_flow.yaml"
    # As many as there are, if these are fewer: one job has the machine to itself.
    threads: 8
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        device=config["device"],
        tile=config["tile"],
        reading=lambda wildcards: {
            key: config["apply"].get(key)
            for key in ("axes", "planes", "channel", "pixel_size")
        },
        format=config["apply"]["format"],
    script:
        "../scripts/apply.py"
