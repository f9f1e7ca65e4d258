"""Predict new images with a trained model: only on request, with `snakemake predict`.

The results are not declared as outputs, because Snakemake would delete them if a job is
interrupted. With a storage plugin they stay on the local file system, hence `local`.
"""


rule predict_chunk:
    input:
        model=new_images_model,
        # The time of the folder changes with any image; params.state depends on this chunk only.
        images=ancient(new_images_folder),
    output:
        finished=local(CHUNK),
    log:
        f"<logs>/predict_chunk/{PREDICTED}/{{chunks}}/{{chunk}}.log",
    benchmark:
        f"<benchmarks>/predict_chunk/{PREDICTED}/{{chunks}}/{{chunk}}.tsv"
    wildcard_constraints:
        chunks=r"\d+",
        chunk=r"\d+",
    conda:
        "../../envs/denoiseg_flow.yaml"
    # At most as many as the machine has: one job has the machine to itself.
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
        scaling={key: config["predict"][key] for key in ("normalise", "rescale")},
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
    benchmark:
        f"<benchmarks>/predict/{PREDICTED}.tsv"
    # A failed image would fail again.
    retries: 0
    conda:
        "../../envs/denoiseg_flow.yaml"
    script:
        "../scripts/predict.py"
