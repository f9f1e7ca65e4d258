"""Own images without a single mask: segmented by the network pretrained on simulated images."""

import numpy as np
import pandas as pd
from snakemake_call import call_here

from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.data.store import open_labels, write_array
from denoiseg_flow.evaluation.metrics import average_precision
from denoiseg_flow.reporting.captions import FIGURES


def test_images_without_masks_are_segmented(tmp_path):
    images = {each.name: each for each in simulate(n_images=6, size=96, seed=1)}
    for name, each in images.items():
        write_array(tmp_path / "images" / f"{name}.tif", each.image)
    noise = np.random.default_rng(0).normal(20, 5, (96, 96)).astype(np.float32)
    write_array(tmp_path / "images" / "noise.tif", noise)
    call = call_here(
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
    assert open_labels(run / "predictions/labels/noise.tif").max() == 0
    results = tmp_path / "results"
    table = pd.read_csv(results / "trust/my_images_without_masks_n0.csv")
    assert table["confidence"].is_monotonic_increasing
    assert table["image"][0] == "noise" and table["confidence"][1] > 0
    report = (results / "report.html").read_text()
    assert "no method was scored" in report and "This study has no tables." in report
    assert report.count("learned segmentation from simulated images only") == 2
    assert "1 of 7 images are doubtful" in report and "Least confident images" in report
    for title, _ in (FIGURES["residuals"], FIGURES["diagnostics"], FIGURES["training_curves"]):
        assert f"{title}: my_images" not in report
    suggested = pd.read_csv(results / "suggestions/my_images_without_masks_n0.csv")
    assert set(suggested["image"]) == {*images, "noise"}
