"""Own images without a single mask: segmented by the network pretrained on simulated images."""

import numpy as np
import pandas as pd
from snakemake_call import call_snakemake

from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.data.store import open_labels, write_array
from denoiseg_flow.evaluation.metrics import average_precision


def test_images_without_masks_are_segmented(tmp_path):
    images = {each.name: each for each in simulate(n_images=6, size=96, seed=1)}
    for name, each in images.items():
        write_array(tmp_path / "images" / f"{name}.tif", each.image)
    call = call_snakemake(
        tmp_path,
        "--cores",
        "2",
        "--config",
        "datasets={my_images_without_masks: {images: images}}",
        "grid={datasets: [my_images_without_masks], methods: [pretrained]}",
        config="own_images",
    )
    assert call.status == 0, call.screen
    run = tmp_path / "results/runs/my_images_without_masks/n0/pretrained/annotated0/seed1"
    scores = [
        average_precision(each.mask, open_labels(run / f"predictions/labels/{name}.tif"))
        for name, each in images.items()
    ]
    assert np.mean(scores) > 0.6
    assert "no method was scored" in (tmp_path / "results/report.html").read_text()
    suggested = pd.read_csv(tmp_path / "results/suggestions/my_images_without_masks_n0.csv")
    assert set(suggested["image"]) == set(images)
