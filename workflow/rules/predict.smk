"""A trained model on new images: only if asked for, by `snakemake predict`.

The results lie beside the declared outputs, which Snakemake would delete where a job is
interrupted. So they stay on the file system when a bucket is the default storage: `local`.
"""


rule predict_chunk:
    input:
        model=new_images_model,
        # Its time changes with every image of any chunk; params.state is of those of this one.
        images=ancient(new_images_folder),
    output:
        finished=local(CHUNK),
    log:
        f"<logs>/predict_chunk/{PREDICTED}/{{chunks}}/{{chunk}}.log",
    wildcard_constraints:
        chunks=r"\d+",
        chunk=r"\d+",
    conda:
        "../../envs/denoiseg_flow.yaml"
    # As many as there are, if these are fewer: one job has the machine to itself.
    threads: 8
    resources:
        gpu=gpu(True),
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        device=config["device"],
        tile=config["tile"],
        reading=lambda wildcards: {
            key: config["predict"].get(key)
            for key in ("axes", "planes", "channel", "pixel_size")
        },
        format=config["predict"]["format"],
        state=state_of_chunk,
    script:
        "../scripts/predict_chunk.py"


rule predict:
    input:
        chunks=finished_chunks,
        images=ancient(new_images_folder),
    output:
        finished=local(f"<results>/predicted/{PREDICTED}/.finished"),
    log:
        f"<logs>/predict/{PREDICTED}.log",
    # An image that could not be predicted will not be so a moment later.
    retries: 0
    conda:
        "../../envs/denoiseg_flow.yaml"
    script:
        "../scripts/predict.py"
