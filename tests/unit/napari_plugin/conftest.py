"""A small study without its jobs, a folder of predicted images, and a round of annotation."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from denoiseg_flow.data.files.metadata import Metadata
from denoiseg_flow.data.prepare import prepare
from denoiseg_flow.data.store import write_array, write_labels
from denoiseg_flow.deployment.predict_images import predict_images
from denoiseg_flow.models.model_file import load_model
from denoiseg_flow.models.predict_run import predict_folder
from denoiseg_flow.study.provenance import record_study

SIZE = 32
PLACED = Metadata("YX", {"Y": 0.25, "X": 0.25})


@dataclass(frozen=True)
class Study:
    """The folder of a study, in which two images were predicted, and one is annotated."""

    folder: Path
    model: Path

    @property
    def results(self):
        return self.folder / "results"


@pytest.fixture
def study(tmp_path, model_file, make_blobs, config):
    folder = tmp_path / "study"
    for number in range(2):
        image, mask = make_blobs(SIZE, number)
        write_array(folder / f"images/{number}.tif", image.astype(np.uint8), PLACED)
        if number == 0:
            write_labels(folder / f"masks/{number}.tif", mask, PLACED)
    config["datasets"] = {
        "own": {"source": "folder", "images": f"{folder}/images", "masks": f"{folder}/masks"}
    }
    results = folder / "results"
    record_study(results, {}, config, {})
    prepare(config["datasets"]["own"], None, results / "data/own/prepared")
    for noise in ("n0", "n10"):
        for number in range(2):
            image = make_blobs(SIZE, number)[0]
            write_array(results / f"data/own/noisy/{noise}/{number}.tif", image, PLACED)
    run = results / "runs/own/n0/denoiseg/annotated1/seed1"
    model = load_model(model_file)
    predict_folder(model, results / "data/own/noisy/n0", ["0", "1"], run / "predictions", False)
    (run / "model.pt").write_bytes(model_file.read_bytes())
    return Study(folder, model_file)


@pytest.fixture(params=["tif", "ome.zarr"])
def predicted(study, request):
    """A folder of ``denoiseg-flow predict``."""
    folder = study.folder / "predicted"
    images = {"0": study.folder / "images/0.tif"}
    predict_images(study.model, images, folder, form=request.param)
    return folder


@pytest.fixture
def suggested(study):
    """A folder of ``denoiseg-flow annotate-next``."""
    folder = study.folder / "round1"
    labels = np.zeros((SIZE, SIZE), np.uint16)
    labels[4:12, 4:12] = 1
    for name in ("1", "0"):
        image = study.folder / f"images/{name}.tif"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "images" / image.name).write_bytes(image.read_bytes())
        write_labels(folder / f"masks/{name}.tif", labels, PLACED)
    pd.DataFrame({"file": ["1", "0"]}).to_csv(folder / "suggestions.csv")
    return folder
