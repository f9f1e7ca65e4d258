"""`snakemake predict` on images of another intensity scale and magnification."""

import numpy as np
import pandas as pd
from snakemake_call import call_here, dry_run

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.simulated.simulator import simulate
from denoiseg_flow.data.store import open_labels, write_array
from denoiseg_flow.models.model_file import save_model
from denoiseg_flow.models.weights import load_pretrained


def test_the_keys_normalise_and_rescale(tmp_path):
    """Nuclei in volts, with twice as many pixels along each axis; every one is found."""
    model = load_pretrained("simulated_objects")
    model.origin = model.origin | {"pixel_size": {"Y": 0.5, "X": 0.5}}
    save_model(model, tmp_path / "model.pt")
    (sample,) = simulate(n_images=1, size=96, n_nuclei=(5, 5), seed=3)
    image = np.kron(sample.image, np.ones((2, 2))) / 2000
    size = Metadata("YX", {"Y": 0.25, "X": 0.25})
    write_array(tmp_path / "new/a.tif", image.astype(np.float32), size)
    how = "normalise: image, rescale: pixel-size"
    asked = f"predict={{images: new, model: {tmp_path}/model.pt, {how}}}"
    call = call_here(tmp_path, "--cores", "1", "predict", "--config", asked)
    assert call.status == 0, call.screen
    out = tmp_path / "results/predicted/new"
    labels = open_labels(out / "labels/a.tif")
    assert labels.shape == image.shape and labels.max() == sample.mask.max()
    record = pd.read_csv(out / "images.tsv", sep="\t", keep_default_na=False)
    assert record["warned"].tolist() == [""]

    other = asked.replace("pixel-size", "[0.5, 0.4]")
    call = dry_run(tmp_path, "--cores", "1", "predict", "--config", other)
    assert call.jobs == {"predict_chunk": 1, "predict": 1}, "other options are other results"
    for wrong, where in [("0", ""), ("half", ""), ("[1, -1, 1]", ".1")]:
        call = dry_run(tmp_path, "predict", "--config", asked.replace("pixel-size", wrong))
        assert call.status != 0
        assert f"config key 'predict.rescale{where}'" in call.screen
        assert "from 0.1 to 10" in call.screen
