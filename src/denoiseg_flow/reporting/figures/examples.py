"""Choose test images for figures and report by a rule, not by eye."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from denoiseg_flow.data.layout import Predictions, PreparedData, image_file
from denoiseg_flow.data.store import open_labels, open_picture
from denoiseg_flow.evaluation.overlap import Matching, match_objects
from denoiseg_flow.study.grid import Run


def scores_of_images(metrics: pd.DataFrame, runs: Sequence[Run]) -> pd.Series:
    """Return the mean score of each test image over some runs, by image name.

    The score is AP, or PSNR if no run segments, as the name of the result says; it is empty if
    there is neither.
    """
    keys = pd.DataFrame([run.as_dict() for run in runs])
    shown = metrics.merge(keys, on=list(keys.columns))
    metric = "AP" if (shown["metric"] == "AP").any() else "PSNR"
    return shown[shown["metric"] == metric].groupby("image")["value"].mean().rename(metric)


def rank_images(scores: pd.Series, predictions: Predictions) -> list[str]:
    """Return test images, sorted from the worst to the best score.

    Parameters
    ----------
    scores
        Scores of the images, see :func:`scores_of_images`.
    predictions
        Of one run. Without scores, because there are neither masks nor clean images, its images
        are returned in alphabetical order.
    """
    if scores.empty:
        return sorted(predictions.images())
    return scores.sort_values(kind="stable").index.astype(str).tolist()


@dataclass(frozen=True)
class Example:
    """One test image and the predictions of a run.

    All arrays are (y, x) and have the same shape; all except the noisy image may be None. Images in
    colour (``noisy``, ``denoised``, ``clean``) are (y, x, 3).
    ``labels`` are the predicted instances, ``truth`` the annotated instances (< 0 is ignored),
    ``clean`` is the result of a perfect denoiser.
    """

    name: str
    noisy: np.ndarray
    denoised: np.ndarray | None = None
    labels: np.ndarray | None = None
    truth: np.ndarray | None = None
    clean: np.ndarray | None = None
    whole: tuple[np.ndarray, np.ndarray] | None = None
    """Annotated and predicted instances of the whole volume, if the arrays above are a z-slice."""

    @property
    def matching(self) -> Matching | None:
        """Matches of predicted and annotated objects in the whole image, if there are both."""
        if self.truth is None or self.labels is None:
            return None
        return match_objects(*(self.whole or (self.truth, self.labels)))

    @classmethod
    def load(
        cls, name: str, image: str, prepared: PreparedData, noisy: Path, predictions: Predictions
    ) -> "Example":
        """Read an image and its predictions from the folders of the workflow."""

        def read(path: Path) -> np.ndarray | None:
            return open_picture(path) if path.exists() else None

        truth, found = prepared.mask(image), predictions.file("labels", image)
        both = truth.exists() and found.exists()
        return cls(
            name=name,
            noisy=open_picture(image_file(noisy, image)),
            denoised=read(predictions.file("denoised", image)),
            labels=read(found),
            truth=read(truth),
            clean=read(prepared.clean(image)),
            whole=(open_labels(truth), open_labels(found)) if both else None,
        )
