"""Jobs of Cellpose 3 (PyTorch), the last generation that is made to be trained from scratch."""

import logging
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from cellpose.dynamics import resize_and_compute_masks
from cellpose.metrics import average_precision
from cellpose.models import CellposeModel
from cellpose.train import train_seg
from cellpose.utils import diameters
from job import CLOCKS, main, versions

CHANNELS = [0, 0]  # grey images without a second channel
CELLPROB_THRESHOLDS = (-2.0, -1.0, 0.0, 1.0, 2.0)
FLOW_THRESHOLDS = (0.4, 0.8)
Maps = tuple[np.ndarray, np.ndarray]


def read(folder: Path, names: list[str], kind: type) -> list[np.ndarray]:
    """Return images or masks (y, x)."""
    return [tifffile.imread(folder / f"{name}.tif").astype(kind) for name in names]


def build(job: dict[str, Any]) -> CellposeModel:
    """Return a model with random weights, or the one that the job names.

    Without its file Cellpose would look for a model of its own on the internet.
    """
    if job["model"] and not Path(job["model"]).is_file():
        raise SystemExit(f"there is no file {job['model']}; models are never downloaded")
    torch.manual_seed(job["seed"])
    return CellposeModel(gpu=False, pretrained_model=job["model"] or False)


class Segmenter:
    """A network and the diameter of the objects that it rescales images by."""

    def __init__(self, model: CellposeModel, diameter: float) -> None:
        self.model = model
        self.diameter = diameter

    def maps(self, image: np.ndarray) -> Maps:
        """Return flows (2, y, x) and logits of the foreground (y, x)."""
        _, flows, _ = self.model.eval(
            image, channels=CHANNELS, diameter=self.diameter, compute_masks=False
        )
        return flows[1], flows[2]

    def labels(self, maps: Maps, thresholds: tuple[float, float]) -> np.ndarray:
        """Return labels (y, x), given the thresholds of foreground and flow error."""
        # As many iterations as by default.
        steps = int(200 * self.diameter / self.model.diam_mean)
        return resize_and_compute_masks(
            *maps, niter=steps, cellprob_threshold=thresholds[0], flow_threshold=thresholds[1]
        ).astype(np.int32)

    def choose(self, maps: list[Maps], truths: list[np.ndarray]) -> tuple[float, float]:
        """Return the thresholds of the best mean AP at an IoU of 0.5."""

        def score(thresholds: tuple[float, float]) -> float:
            labels = [self.labels(each, thresholds) for each in maps]
            return float(np.nanmean(average_precision(truths, labels, threshold=[0.5])[0]))

        # The defaults come first, and win a tie.
        candidates = sorted(
            product(CELLPROB_THRESHOLDS, FLOW_THRESHOLDS), key=lambda pair: (abs(pair[0]), pair)
        )
        return max(candidates, key=score)


def train(job: dict[str, Any]) -> dict[str, Any]:
    """One training of some epochs, timed as a whole, and its predictions of the test images.

    Without epochs, the given model predicts as it is.
    """
    torch.set_num_threads(job["threads"])
    logging.basicConfig(level=logging.INFO)
    clock = CLOCKS[job["clock"]]
    noisy, masks = Path(job["noisy"]), Path(job["masks"])
    x = read(noisy, job["revealed"], np.float32)
    y = read(masks, job["revealed"], np.int32)
    model = build(job)
    started = clock()
    if job["epochs"]:
        with tempfile.TemporaryDirectory() as folder:
            train_seg(
                model.net,
                train_data=x,
                train_labels=y,
                channels=CHANNELS,
                batch_size=job["batch_size"],
                n_epochs=job["epochs"],
                nimg_per_epoch=job["images_per_epoch"],
                min_train_masks=1,
                save_path=folder,
            )
    report = {
        "seconds": clock() - started,
        "steps": job["epochs"] * -(-job["images_per_epoch"] // job["batch_size"]),
        "versions": versions("cellpose", "torch"),
    }
    if job["predictions"]:
        segmenter = Segmenter(model, float(np.mean([max(5.0, diameters(each)[0]) for each in y])))
        maps = [segmenter.maps(image) for image in read(noisy, job["val"], np.float32)]
        thresholds = segmenter.choose(maps, read(masks, job["val"], np.int32))
        report |= {"thresholds": thresholds, "diameter": segmenter.diameter}
        target = Path(job["predictions"], "labels")
        target.mkdir(parents=True)
        for name in job["test"]:
            [image] = read(noisy, [name], np.float32)
            labels = segmenter.labels(segmenter.maps(image), thresholds)
            tifffile.imwrite(target / f"{name}.tif", labels, compression="zlib")
    return report


if __name__ == "__main__":
    main(train=train)
