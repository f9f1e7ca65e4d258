"""Which test images the figures and the report show, chosen by rule and not by eye."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from denoiseg_flow.data.store import open_image, open_plane
from denoiseg_flow.evaluation.overlap import Matching, match_objects
from denoiseg_flow.study.grid import Run


def scores_of_images(metrics: pd.DataFrame, runs: Sequence[Run]) -> pd.Series:
    """Return the mean score of each test image over some runs, by its name.

    That is average precision, or PSNR if none of them segments; empty where there is neither.
    """
    keys = pd.DataFrame([run.as_dict() for run in runs])
    shown = metrics.merge(keys, on=list(keys.columns))
    metric = "AP" if (shown["metric"] == "AP").any() else "PSNR"
    return shown[shown["metric"] == metric].groupby("image")["value"].mean()


def rank_images(scores: pd.Series, predictions: Path) -> list[str]:
    """Return test images from the worst to the best predicted.

    Parameters
    ----------
    scores
        Of some runs, see :func:`scores_of_images`.
    predictions
        Folder of the predictions of one of them. Where nothing can be scored, because there are
        neither masks nor clean images, its images are returned in the order of their names.
    """
    if scores.empty:
        return sorted({path.stem for path in predictions.glob("*/*.tif")})
    return scores.sort_values(kind="stable").index.astype(str).tolist()


@dataclass(frozen=True)
class Example:
    """One test image and what a run made of it.

    All arrays are (y, x) and of the same shape; those but the noisy image are None where there is
    none. ``labels`` are the predicted instances, ``truth`` the annotated ones (< 0 is ignored),
    ``clean`` is what a perfect denoiser gives back.
    """

    name: str
    noisy: np.ndarray
    denoised: np.ndarray | None = None
    labels: np.ndarray | None = None
    truth: np.ndarray | None = None
    clean: np.ndarray | None = None
    whole: tuple[np.ndarray, np.ndarray] | None = None
    """Annotated and predicted instances of the volume that the arrays above are a plane of."""

    @property
    def matching(self) -> Matching | None:
        """Which predicted object found which annotated one, in the whole image; None without."""
        if self.truth is None or self.labels is None:
            return None
        return match_objects(*(self.whole or (self.truth, self.labels)))

    @classmethod
    def load(
        cls, name: str, image: str, prepared: Path, noisy: Path, predictions: Path
    ) -> "Example":
        """Read an image from the folders of the workflow, to be shown under a name."""

        def read(folder: Path) -> np.ndarray | None:
            path = folder / f"{image}.tif"
            return np.array(open_plane(path)) if path.exists() else None

        masks, labels = prepared / "masks", predictions / "labels"
        truth, found = (folder / f"{image}.tif" for folder in (masks, labels))
        both = truth.exists() and found.exists()
        return cls(
            name=name,
            noisy=np.array(open_plane(noisy / f"{image}.tif")),
            denoised=read(predictions / "denoised"),
            labels=read(labels),
            truth=read(masks),
            clean=read(prepared / "clean"),
            whole=(open_image(truth), open_image(found)) if both else None,
        )
