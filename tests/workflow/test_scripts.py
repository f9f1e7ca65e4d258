"""The scripts, one after the other on a tiny dataset, called without Snakemake."""

import csv
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from denoiseg_flow import findings
from denoiseg_flow.data import manifest
from denoiseg_flow.jobs.checksums import NAME
from denoiseg_flow.methods.classical import candidates
from denoiseg_flow.methods.definition import as_dict
from denoiseg_flow.models.model_file import load_model
from denoiseg_flow.reporting.study_report import SettingFiles, examples_of_runs
from denoiseg_flow.study import contents
from denoiseg_flow.study.grid import PURPOSES, Grid
from denoiseg_flow.training import rehearsal

BENCHMARK = "s\th:m:s\tmax_rss\n1.5\t0:00:01\t100\n"


class Chain:
    """Every step of the workflow, in a folder, in order."""

    def __init__(self, folder, config, run_script):
        self.config, self.run_script = config, run_script
        self.grid = Grid(config)
        self.data, self.tables = folder / "data/nuclei", folder / "tables"
        self.prepared, self.split = self.data / "prepared", self.data / "split/seed1.tsv"
        self.noisy = self.data / "noisy/n10"
        self.runs, self.figures = folder / "runs", folder / "figures/nuclei"
        self.benchmarks, self.log = folder / "benchmarks", folder / "logs"
        self.report = folder / "report.html"
        self.make_data()
        for run in self.grid.runs:
            self.make_run(run)
        self.make_tables()
        self.checks, self.trust = folder / "checks", folder / "trust"
        self.suggestions = folder / "suggestions"
        self.make_advice()
        self.make_report()
        self.predicted = folder / "predicted"
        self.predict_new()

    def predict_new(self):
        """A model on images that it knows, in the jobs of two chunks."""
        chunks = [self.predicted / f".chunks/2/{number}.finished" for number in range(2)]
        for number, finished in enumerate(chunks):
            self.call(
                "predict_chunk",
                input={
                    "model": self.of(self.grid.new_images_run, "model.pt"),
                    "images": self.noisy,
                },
                output={"finished": finished},
                params={
                    "device": "cpu",
                    "tile": None,
                    "format": "tif",
                    "reading": {"axes": None, "planes": False, "channel": None, "pixel_size": None},
                    "scaling": {"normalise": "training", "rescale": None},
                },
                wildcards={"chunks": "2", "chunk": f"{number}"},
            )
        self.call(
            "predict",
            input={"chunks": chunks, "images": self.noisy},
            output={"finished": self.predicted / ".finished"},
        )

    def of(self, run, name):
        return self.runs / run.method / name

    def call(self, script, **job):
        self.run_script(script, self.log / f"{script}.log", config=self.config, **job)

    def make_data(self):
        spec = self.config["datasets"]["nuclei"]
        raw = self.data / "raw"
        self.call("simulate", output={"raw": raw}, params={"dataset": spec})
        self.call(
            "prepare",
            input={"raw": raw},
            output={"prepared": self.prepared},
            params={"dataset": spec},
        )
        self.call(
            "split",
            input={"prepared": self.prepared},
            output={"split": self.split},
            params={"split": spec["split"], "n_train": None},
            wildcards={"seed": "1"},
        )
        self.call(
            "add_noise",
            input={"prepared": self.prepared},
            output={"noisy": self.noisy},
            params={"level": self.config["noises"]["n10"]},
            wildcards={"noise": "n10"},
        )

    def make_run(self, run):
        source, init = self.grid.input_run(run), self.grid.init_run(run)
        wildcards = {key: str(value) for key, value in run.as_dict().items()}
        images = self.of(source, "predictions") if source else self.noisy
        method = self.grid.methods[run.method]
        self.call(
            "train",
            input={
                "split": self.split,
                "prepared": self.prepared,
                "images": images,
                "input_model": self.of(source, "model.pt") if source else [],
                "init": self.of(init, "model.pt") if init else [],
            },
            output={"model": self.of(run, "model.pt"), "history": self.of(run, "history.tsv")},
            params={
                "method": as_dict(method),
                "recipe": None if method.classical else as_dict(self.grid.recipe_of(method)),
                "level": self.grid.noise_level(run.method, "n10"),
                "subsets": self.grid.own_subsets(run.method),
                "device": "cpu",
            },
            wildcards=wildcards,
        )
        self.call(
            "predict_run",
            input={"split": self.split, "images": images, "model": self.of(run, "model.pt")},
            output={"predictions": self.of(run, "predictions")},
            params={
                "subsets": self.grid.predicted_subsets(run.method),
                "judged": ["test"] if run.method == "donut_median" else [],
                "save_probabilities": run.method == "denoiseg",
                "device": "cpu",
                "tile": None,
            },
            wildcards=wildcards,
        )
        self.call(
            "score",
            input={
                "split": self.split,
                "prepared": self.prepared,
                "noisy": self.noisy,
                "predictions": self.of(run, "predictions"),
            },
            output={"metrics": self.of(run, "metrics.tsv")},
            wildcards=wildcards,
        )

    def make_tables(self):
        self.call(
            "aggregate",
            input={
                "metrics": [self.of(run, "metrics.tsv") for run in self.grid.scored_runs],
                "published": [],
            },
            output={"metrics": self.tables / "metrics.csv"},
            params={"study": contents.comparison(self.grid)},
        )
        for rule in ("train", "predict_run"):
            for run in self.grid.runs:
                name = f"nuclei/n10/{run.method}/annotated{run.n_annotated}/seed1.tsv"
                path = self.benchmarks / rule / name
                path.parent.mkdir(parents=True)
                path.write_text(BENCHMARK)
        self.call("measure_costs", output={"html": self.benchmarks / "costs.html"})

    def make_advice(self):
        read = {"split": self.split, "prepared": self.prepared, "noisy": self.noisy}
        wildcards = {"dataset": "nuclei", "noise": "n10"}
        self.call(
            "check",
            input=read,
            output={end: self.checks / f"nuclei_n10.{end}" for end in ("html", "csv", "json")},
            wildcards=wildcards,
        )
        runs = {purpose: self.grid.candidates(**wildcards, purpose=purpose) for purpose in PURPOSES}
        axes = {purpose: [run.as_dict() for run in each] for purpose, each in runs.items()}
        predictions = {
            purpose: [self.of(run, "predictions") for run in each] for purpose, each in runs.items()
        }
        sources = [self.grid.input_run(run) for run in runs["labels"]]
        read |= {
            "metrics": self.tables / "metrics.csv",
            "images": [self.of(run, "predictions") if run else self.noisy for run in sources],
            "models": [self.of(run, "model.pt") for run in runs["labels"]],
        }
        self.call(
            "trust",
            input=read | predictions,
            output={end: self.trust / f"nuclei_n10.{end}" for end in ("csv", "json")}
            | {"objects": self.trust / "objects/nuclei_n10.csv"}
            | {name: self.drawing(f"{name}_n10") for name in ("residuals", "diagnostics")},
            params={"about": "nuclei, noise n10", "device": "cpu"} | axes,
        )
        self.call(
            "suggest",
            input=read,
            output={
                "csv": self.suggestions / "nuclei_n10.csv",
                "figure": self.drawing("suggestions_n10"),
            },
            params={"device": "cpu", "runs": axes["labels"]},
        )

    def drawing(self, name):
        return [self.figures / f"{name}.{end}" for end in ("png", "svg")]

    def make_report(self):
        metrics = {"metrics": self.tables / "metrics.csv"}
        histories = [self.of(run, "history.tsv") for run in self.grid.runs]
        judged = contents.precision_runs(self.grid, "nuclei")
        models = [self.of(run, "model.pt") for run in judged]
        curves = contents.figures(self.grid, "nuclei")
        for name in curves:
            self.call(
                "plot",
                input=metrics | {"histories": histories, "models": models},
                output={"figure": self.drawing(name)},
                params={
                    "methods": self.grid.method_names,
                    "noises": contents.noise_descriptions(self.grid),
                    "denoisers": contents.calibrated_denoisers(self.grid),
                    "sizes": contents.training_sizes(self.grid, "nuclei"),
                },
                wildcards={"dataset": "nuclei", "figure": name},
            )
        runs = self.grid.example_runs("nuclei", "n10")
        self.call(
            "plot_panel",
            input=metrics
            | {"prepared": self.prepared, "noisy": self.noisy}
            | {"predictions": [self.of(run, "predictions") for run in runs]},
            output={"figure": self.drawing("panel_n10")},
            params={"runs": [run.as_dict() for run in runs]},
            wildcards={"dataset": "nuclei", "noise": "n10"},
        )
        setting = {"dataset": "nuclei", "noise": "n10"}
        self.call(
            "report",
            input=metrics
            | {
                "published": [],
                "costs": self.benchmarks / "costs.csv",
                "figures": [
                    *(self.figures / f"{name}.svg" for name in curves),
                    self.figures / "panel_n10.png",
                ],
                "prepared": [self.prepared],
                "noisy": [self.noisy],
                "predictions": [
                    self.of(run, "predictions") for run in self.grid.examined(**setting)
                ],
                "checks": [self.checks / "nuclei_n10.json"],
                "findings": [self.trust / "nuclei_n10.json"],
                "images": [self.trust / "nuclei_n10.csv"],
                "residuals": self.drawing("residuals_n10")[:1],
                "diagnostics": self.drawing("diagnostics_n10")[1:],
                "suggestions": [self.suggestions / "nuclei_n10.csv"],
                "thumbnails": self.drawing("suggestions_n10")[:1],
            },
            output={"report": self.report},
            params={
                "study": contents.comparison(self.grid),
                "title": self.config["title"],
                "notes": ["A note for the reader."],
            },
        )


@pytest.fixture(scope="module")
def chain(tmp_path_factory, config, run_script):
    """Methods of every kind: networks, one for each image, a second copy, and no network."""
    config = deepcopy(config)
    config["grid"]["methods"] += ["n2n", "n2s_single", "donut_median"]
    return Chain(tmp_path_factory.mktemp("chain"), config, run_script)


def stems(folder):
    return {path.stem for path in folder.glob("*.tif")}


def test_simulate_and_prepare(chain):
    images = manifest.read(chain.prepared / "manifest.tsv")
    assert len(images) == 12
    assert (images[["height", "width"]] == 64).all(axis=None)
    assert (images[["annotated", "clean"]] == 1).all(axis=None)
    for kind in ("images", "masks", "clean"):
        assert stems(chain.prepared / kind) == set(images["image"])
    assert tifffile.imread(chain.prepared / "masks/sim_0000.tif").dtype == np.int32


def test_simulated_images_of_trainings(tmp_path, run_script, monkeypatch):
    monkeypatch.setitem(rehearsal.N_IMAGES, 2, 3)
    monkeypatch.setitem(rehearsal.SMALLEST, 2, (32, 32))
    path = tmp_path / "simulated_objects.npz"
    run_script(
        "simulate_rehearsal",
        tmp_path / "log",
        output={"images": path},
        params={"patch_shape": [40, 40]},
        wildcards={"pretrained": "simulated_objects"},
    )
    assert [image.shape for image in rehearsal.read_rehearsal(path).images] == [(40, 40)] * 3


def test_split(chain):
    split = manifest.read(chain.split)
    counts = split["subset"].value_counts()
    assert counts.to_dict() == {"train": 7, "test": 3, "val": 2}
    assert sorted(split["rank"].dropna()) == list(range(1, 8))


def test_add_noise(chain):
    assert stems(chain.noisy) == stems(chain.prepared / "images")
    added = [
        tifffile.imread(path).astype(float) - tifffile.imread(chain.prepared / "images" / path.name)
        for path in sorted(chain.noisy.glob("*.tif"))
    ]
    # 12 x 64 x 64 = 49152 pixels: the standard error of their standard deviation is 0.03.
    assert np.std(added) == pytest.approx(10, abs=0.15)


def test_train(chain):
    for run in chain.grid.runs:
        history = pd.read_csv(chain.of(run, "history.tsv"), sep="\t")
        method = chain.grid.methods[run.method]
        assert history["value" if method.classical else "step"].tolist() == (
            list(candidates("donut_median")) if method.classical else [20, 40]
        )
        assert np.isfinite(history["mse" if method.classical else "loss"]).all()
        assert history[["method", "n_annotated"]].drop_duplicates().values.tolist() == [
            [run.method, run.n_annotated]
        ]
        model = load_model(chain.of(run, "model.pt"), "cpu")
        assert (getattr(model, "threshold", None) is not None) == method.segments
        assert not chain.of(run, "checkpoint.pt").exists()


def test_predict(chain):
    split = manifest.read(chain.split)
    test = set(split.loc[split["subset"] == "test", "image"])
    for run in chain.grid.runs:
        method = chain.grid.methods[run.method]
        folder = chain.of(run, "predictions")
        images = set(split["image"]) if run.method == "n2v" else test
        assert stems(folder / "denoised") == (images if method.denoises else set())
        assert stems(folder / "j_invariant") == (images if method.masks_grid else set())
        assert stems(folder / "labels") == (images if method.segments else set())
        assert stems(folder / "probabilities") == (test if run.method == "denoiseg" else set())


def test_check(chain):
    table = pd.read_csv(chain.checks / "nuclei_n10.csv")
    assert len(table) == 12
    assert table["noise_sigma"].median() == pytest.approx(10, abs=2)
    page = (chain.checks / "nuclei_n10.html").read_text()
    assert "Quality checks: nuclei, noise n10" in page
    assert "independent between pixels" in page


def test_predict_new_images(chain):
    assert chain.grid.new_images_run.method == "denoiseg"
    split = manifest.read(chain.split)
    predictions = chain.of(chain.grid.new_images_run, "predictions")
    for kind in ("denoised", "labels"):
        assert stems(chain.predicted / kind) == set(split["image"])
        for image in split.loc[split["subset"] == "test", "image"]:
            before, after = (
                tifffile.imread(folder / kind / f"{image}.tif")
                for folder in (predictions, chain.predicted)
            )
            assert np.array_equal(before, after)
    record = pd.read_csv(chain.predicted / "images.tsv", sep="\t")
    assert record["image"].tolist() == sorted(split["image"])


def test_models_that_read_denoised_images_bring_the_denoiser(chain):
    model = load_model(chain.runs / "sequential/model.pt")
    assert model.input.method.name == "n2v" and model.input.input is None


def test_folders_have_checksums(chain):
    run = chain.of(chain.grid.runs[0], "predictions")
    for folder in (chain.prepared, chain.noisy, run):
        listed = {line.partition("  ")[2] for line in (folder / NAME).read_text().splitlines()}
        files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert listed == files - {NAME} and listed


def test_score(chain):
    for run in chain.grid.runs:
        metrics = pd.read_csv(chain.of(run, "metrics.tsv"), sep="\t")
        assert metrics["image"].nunique() == 3
        names = set(metrics["metric"])
        method = chain.grid.methods[run.method]
        assert ({"AP", "SEG"} <= names) == method.segments
        assert ({"PSNR", "SSIM"} <= names) == method.denoises
        ap = metrics.loc[metrics["metric"] == "AP", "value"]
        assert ap.between(0, 1).all()


def test_aggregate(chain):
    metrics = pd.read_csv(chain.tables / "metrics.csv")
    files = [chain.of(run, "metrics.tsv") for run in chain.grid.runs]
    assert len(metrics) == sum(len(pd.read_csv(path, sep="\t")) for path in files)
    assert set(metrics["method"]) == set(chain.grid.method_names)
    names = {path.name for path in chain.tables.iterdir()}
    shown = contents.tables(chain.grid)
    tables = {f"{table}.{end}" for table in shown for end in ("csv", "html", "md", "tex")}
    assert names == {"metrics.csv", NAME} | tables


def test_measure_costs(chain):
    with (chain.benchmarks / "costs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["rule"], row["method"]) for row in rows] == [
        (rule, run.method) for rule in ("train", "predict_run") for run in chain.grid.runs
    ]
    assert {(row["n_jobs"], float(row["median_seconds"])) for row in rows} == {("1", 1.5)}


def test_plot(chain):
    advice = ["residuals_n10", "diagnostics_n10", "suggestions_n10"]
    names = [*contents.figures(chain.grid, "nuclei"), "panel_n10", *advice]
    assert {path.name for path in chain.figures.iterdir()} == {
        f"{name}.{end}" for name in names for end in ("svg", "png")
    }
    for name in names:
        assert (chain.figures / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (chain.figures / f"{name}.svg").read_text()


def test_trust(chain):
    table = pd.read_csv(chain.trust / "nuclei_n10.csv")
    assert len(table) == 3 and table["AP"].is_monotonic_increasing
    assert table[["smoothed", "invented"]].stack().between(0, 1).all()
    assert table["confidence"].between(0, 1).all()
    assert (table.loc[table["objects"] == 0, "confidence"] == 0).all()
    objects = pd.read_csv(chain.trust / "objects/nuclei_n10.csv")
    assert objects.groupby("image").size().to_dict() == {
        row.image: row.objects for row in table.itertuples() if row.objects
    }
    assert objects["confidence"].is_monotonic_increasing
    assert objects["correct"].isin([0, 1]).all()
    topics = [each.topic for each in findings.read(chain.trust / "nuclei_n10.json")]
    assert {"scores", "confidence"} <= set(topics)


def test_the_best_results_are_examined_and_shown(chain):
    """Of all methods, not of the reference: those with the highest AP and PSNR."""
    metrics = pd.read_csv(chain.tables / "metrics.csv", dtype={"image": str})
    table = pd.read_csv(chain.trust / "nuclei_n10.csv", dtype={"image": str}).set_index("image")
    for metric in ("AP", "PSNR"):
        scores = metrics[metrics["metric"] == metric]
        method = scores.groupby("method")["value"].mean().idxmax()
        best = scores[scores["method"] == method].set_index("image")["value"]
        np.testing.assert_allclose(table[metric].dropna().sort_index(), best.sort_index())
        assert f"nuclei, n10, {method}: worst image {best.idxmin()}" in chain.report.read_text()


def test_images_that_nothing_ranks_are_not_called_better(chain):
    run = next(run for run in chain.grid.runs if run.method == "donut_median")
    metrics = pd.read_csv(chain.tables / "metrics.csv", dtype={"image": str})
    unread = dict.fromkeys(("checks", "findings", "images", "residuals", "diagnostics"))
    predictions = {run: chain.of(run, "predictions")}
    files = SettingFiles(
        "nuclei", "n10", chain.prepared, chain.noisy, predictions=predictions, **unread
    )
    names = {}
    for metric in ("PSNR", "loss_self_supervised"):
        shown = examples_of_runs(metrics[metrics["metric"] == metric], files, [run])
        names[metric] = [example.name.partition(": ")[2].rpartition(" ")[0] for example in shown]
    assert names["PSNR"] == ["worst image", "median image", "best image"]
    assert names["loss_self_supervised"] == ["image"] * 3


def test_suggest_without_unannotated_images(chain):
    assert (chain.suggestions / "nuclei_n10.csv").read_text() == "rank,image,confidence,source\n"


def test_self_supervised_loss_in_the_place_of_clean_images(chain):
    for run in chain.grid.runs:
        metrics = pd.read_csv(chain.of(run, "metrics.tsv"), sep="\t")
        loss = metrics.loc[metrics["metric"] == "loss_self_supervised", "value"]
        judged = run.method in ("donut_median", "n2s_single")
        assert len(loss) == (3 if judged else 0)
        assert (loss > 10**2).all()  # the variance of the noise, at least


def test_report(chain):
    text = chain.report.read_text()
    for words in ("Test of the workflow", "A note for the reader.", "best image", "worst image"):
        assert words in text
    for method in chain.grid.method_names:
        assert method in text
    assert 'src="http' not in text


def test_every_script_left_a_log(chain, repo):
    scripts = {path.stem for path in (repo / "workflow/scripts").glob("*.py")}
    scripts -= {"fetch", "plan", "tables_partial"}  # tested by Snakemake
    scripts -= {"simulate_rehearsal"}  # tested by itself
    assert {path.stem for path in chain.log.iterdir()} == scripts
    assert "lowest self-supervised loss" in (chain.log / "train.log").read_text()
    assert not any("Error" in Path(path).read_text() for path in chain.log.iterdir())


def test_light_scripts_import_nothing_heavy(repo):
    """A second or more for each: most jobs would take longer to start than to do their work."""
    heavy = {"plot", "plot_panel", "suggest", "trust", "train", "predict_run", "predict_chunk"}
    heavy |= {"simulate_rehearsal"}
    scripts = {path.stem: path for path in (repo / "workflow/scripts").glob("*.py")}
    light = [str(path) for name, path in scripts.items() if name not in heavy]
    code = (
        f"import runpy, sys; [runpy.run_path(path) for path in {light}]; "
        "print({'torch', 'matplotlib.figure', 'scipy.ndimage'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert heavy < set(scripts) and done.stdout.strip() == "set()"
