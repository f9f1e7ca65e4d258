"""Measure the quality of the methods with the network of the paper and few annotated images."""

import math
import shutil
import time
from pathlib import Path

import pandas as pd
from material import Material
from phase import Phase, Row

from denoiseg_flow.data.layout import Predictions
from denoiseg_flow.evaluation.scoring import score_run
from denoiseg_flow.models.model import AnyModel
from denoiseg_flow.models.predict_run import predict_folder
from denoiseg_flow.study.grid import Run

METRICS = ("AP", "SEG", "PSNR")
PAIRS = (("denoiseg", "baseline"), ("denoiseg", "sequential"))


def run(phase: Phase, material: Material) -> None:
    """Train and score draw after draw, each complete before the next one begins."""
    slowest = 0.0
    for noise in material.scale.noises:
        for seed in material.draws[: material.scale.n_draws]:
            started = time.monotonic()
            phase.do(f"{noise}, draw {seed}", draw, material, phase, noise, seed, needs=slowest)
            slowest = max(slowest, time.monotonic() - started)
    scores = pd.DataFrame([row for row in phase.rows if "method" in row])
    if len(scores):
        for row in differences(scores):
            about = f"{row['noise']}, {row['n_annotated']} annotated"
            phase.do(
                f"{row['pair']}, {about}: {row['metric']}", lambda row=row: row, needs=-math.inf
            )


def draw(material: Material, phase: Phase, noise: str, seed: int) -> Row:
    """Train all methods on one draw of annotated images, and score them on its test images."""
    depth, filters = material.scale.good_network
    recipe = material.short_recipe(material.scale.good_steps, depth=depth, filters=filters)
    folder = material.scratch / "good"
    runs = 0

    def score(name: str, n_annotated: int, images: Path | None = None) -> Path:
        nonlocal runs
        started = time.monotonic()
        model = material.fit(material.method(name), recipe, seed, n_annotated, noise, images)
        trained = time.monotonic() - started
        out = folder / f"{name}{n_annotated}"
        everywhere = name == "n2v"
        predict(material, model, noise, seed, out, images, everywhere)
        means = mean_scores(material, noise, seed, out)
        row = {"item": "score", "status": "ok", "noise": noise, "seed": seed, "method": name}
        row |= {"n_annotated": n_annotated, "training_seconds": trained} | means
        phase.rows.append(row)
        runs += 1
        return out

    try:
        denoised = score("n2v", 0)
        for n_annotated in material.scale.n_annotated:
            score("baseline", n_annotated)
            score("sequential", n_annotated, denoised)
            score("denoiseg", n_annotated)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"runs": runs}


def predict(
    material: Material,
    model: AnyModel,
    noise: str,
    seed: int,
    out: Path,
    images: Path | None,
    everywhere: bool,
) -> None:
    """Predict the test images, or all of them."""
    split = material.split(seed)
    names = split["image"] if everywhere else split.loc[split["subset"] == "test", "image"]
    predict_folder(model, images or material.noisy(noise), list(names), out, False)


def mean_scores(material: Material, noise: str, seed: int, predictions: Path) -> dict[str, float]:
    """Return the mean of each metric over the test images."""
    run = Run(dataset="", noise=noise, method="", n_annotated=0, seed=seed)
    scores = score_run(
        run,
        material.split(seed),
        material.prepared,
        material.noisy(noise),
        Predictions(predictions),
    )
    means = scores.groupby("metric")["value"].mean()
    return {name: float(means[name]) for name in METRICS if name in means}


def differences(scores: pd.DataFrame) -> list[Row]:
    """Return paired differences over the draws: mean, standard error, and whether it leads by two.

    Parameters
    ----------
    scores
        One row per noise, n_annotated, seed and method, with the columns AP and SEG.
    """
    rows = []
    for metric in ("AP", "SEG"):
        wide = scores.pivot(
            index=["noise", "n_annotated", "seed"], columns="method", values=metric
        )  # fmt: skip
        for better, worse in PAIRS:
            if not {better, worse} <= set(wide.columns):
                continue
            pair = (wide[better] - wide[worse]).dropna()
            for (noise, n_annotated), values in pair.groupby(level=[0, 1]):
                error = float(values.std() / math.sqrt(len(values)))
                rows.append(
                    {
                        "pair": f"{better} - {worse}",
                        "noise": noise,
                        "n_annotated": int(n_annotated),
                        "metric": metric,
                        "mean": float(values.mean()),
                        "standard_error": error,
                        "draws": len(values),
                        "leads_by_two": bool(values.mean() > 2 * error),
                    }
                )
    return rows
