"""config/test.yaml from its beginning to its end, again, changed, killed and imported."""

import html
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
import zipfile

import pandas as pd
import psutil
import pytest
import yaml
from snakemake_call import SNAKEMAKE, call_here, call_snakemake, dry_run

from denoiseg_flow.reporting import captions

METHODS = {"n2v": 0, "baseline": 2, "sequential": 2, "denoiseg": 2, "denoiseg_warm": 2}
TABLES = ("segmentation", "denoising", "paired")
FEW_STEPS = "recipes={tiny: {steps_per_epoch: 3}}"
FIGURES = (
    *("label_curves", "denoising_levels", "training_curves", "precision"),
    *("panel_n10", "residuals_n10", "diagnostics_n10", "suggestions_n10"),
)


def caption_of(figure):
    """The beginning of what stands below a figure, as Snakemake's report holds it."""
    return json.dumps(captions.FIGURES[figure.removesuffix("_n10")][1][:60])[1:-1]


def expected_files():
    """All files but images."""
    yield from ("report.html", "study.json")
    yield from (f"tables/{name}" for name in ("metrics.csv", "checksums.sha256"))
    yield from (f"checks/nuclei_n10.{end}" for end in ("html", "csv", "json"))
    yield from (f"trust/nuclei_n10.{end}" for end in ("csv", "json"))
    yield "trust/objects/nuclei_n10.csv"
    yield "suggestions/nuclei_n10.csv"
    for end in ("csv", "html", "md", "tex"):
        yield from (f"tables/{name}.{end}" for name in TABLES)
        yield f"benchmarks/costs.{end}"
    yield from (f"figures/nuclei/{name}.{end}" for name in FIGURES for end in ("svg", "png"))
    yield from (f"data/nuclei/prepared/{name}" for name in ("manifest.tsv", "checksums.sha256"))
    yield from (f"data/nuclei/{name}/checksums.sha256" for name in ("raw", "noisy/n10"))
    yield from (f"data/nuclei/split/seed1.{end}" for end in ("tsv", "tsv.sha256"))
    for method, n_annotated in METHODS.items():
        axes = f"nuclei/n10/{method}/annotated{n_annotated}/seed1"
        yield from (f"runs/{axes}/{name}" for name in ("model.pt", "history.tsv", "metrics.tsv"))
        yield from (f"runs/{axes}/{name}.tsv.sha256" for name in ("history", "metrics"))
        yield f"runs/{axes}/predictions/checksums.sha256"
        yield from (f"benchmarks/{rule}/{axes}.tsv" for rule in ("train", "predict_run"))
        yield from (f"logs/{axes}/{rule}.log" for rule in ("train", "predict_run", "score"))


def test_jobs_are_selected_when_one_ends(tmp_path):
    """Not every second as well, as often as jobs have ended; a limit of the user is kept."""
    splits = [f"results/data/nuclei/split/seed{seed}.tsv" for seed in (1, 2, 3)]
    study = ("--config", "grid={seeds: [1, 2, 3]}", "--verbose", "--cores", "1", *splits)
    call = call_here(tmp_path, *study)
    assert call.status == 0, call.screen
    assert call.screen.count("Resources before job selection") == 5 == sum(call.jobs.values())
    call = call_here(tmp_path, "--max-jobs-per-timespan", "1/3s", "--forcerun", "split", *study)
    assert call.status == 0 and "Job rate limit reached" in call.screen, call.screen


def test_all_outputs_exist(finished):
    found = {
        str(path.relative_to(finished / "results"))
        for path in (finished / "results").rglob("*")
        if path.is_file() and path.name != ".snakemake_timestamp" and path.suffix != ".tif"
    }
    expected = set(expected_files())
    assert expected <= found
    assert {
        name for name in found - expected if not name.startswith(("logs", "benchmarks"))
    } == set()
    assert len(list((finished / "results/data/nuclei/noisy/n10").glob("*.tif"))) == 12
    assert {path.name for path in finished.iterdir()} == {"results", ".snakemake"}


def test_second_call_does_nothing(finished):
    call = dry_run(finished)
    assert call.status == 0
    assert "Nothing to be done" in call.screen


# What a change of the config repeats. Summaries of the whole study are always made anew.
@pytest.mark.parametrize(
    ("change", "repeated"),
    [
        ("grid={n_annotated: [2, 4]}", {"train": 4, "predict_run": 4, "score": 4}),
        ("grid={noises: [n10, n20]}", {"add_noise": 1, "train": 5, "predict_run": 5, "score": 5}),
        ("grid={seeds: [1, 2]}", {"split": 1, "train": 5, "predict_run": 5, "score": 5}),
        # n2v no longer feeds "sequential", so that only its test images are predicted.
        ("grid={methods: [n2v, baseline, denoiseg]}", {"predict_run": 1, "score": 1}),
        ("recipes={tiny: {epochs: 3}}", {"train": 5, "predict_run": 5, "score": 5}),
        (
            "noises={n10: {sigma: 12}}",
            {"add_noise": 1, "train": 5, "predict_run": 5, "score": 5},
        ),
        ("title=Another title", {"report": 1}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_change_repeats_only_what_depends_on_it(finished, change, repeated):
    call = dry_run(finished, "--config", change)
    assert call.status == 0, call.screen
    steps = ("simulate", "prepare", "split", "add_noise", "train", "predict_run", "score")
    assert {rule: n for rule, n in call.jobs.items() if rule in steps} == {
        rule: n for rule, n in repeated.items() if rule in steps
    }
    assert call.jobs["report"] == 1


def test_tables_are_rebuilt_alone(finished, tmp_path, tables):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    before = tables(folder / "results")
    shutil.rmtree(folder / "results/tables")
    call = call_here(folder, "--cores", "2", "--until", "aggregate")
    assert call.status == 0, call.screen
    assert call.jobs == {"aggregate": 1}
    assert tables(folder / "results") == before


def kill(process):
    """End a workflow and its jobs at once, as a power cut does."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.kill()
    process.wait()
    psutil.wait_procs(family, timeout=10)


def test_killed_run_goes_on(finished, tmp_path, repo):
    """In another folder than the finished study, and to the same bytes; data are there already."""
    for part in ("results/data", ".snakemake"):
        shutil.copytree(finished / part, tmp_path / part)
    methods = ("--config", "grid={methods: [n2v, sequential], reference: sequential}")
    options = ("--cores", "2", "--until", "aggregate", *methods)
    command = [*SNAKEMAKE, "--directory", tmp_path, "--configfile", repo / "config/test.yaml"]
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    runs = tmp_path / "results/runs"
    stop = time.monotonic() + 300
    # The first prediction begins: its training is done, and "sequential" waits for predictions.
    while not list(runs.rglob("predictions")) and time.monotonic() < stop:
        time.sleep(0.05)
    kill(process)
    assert not (tmp_path / "results/tables").exists()

    call = call_here(tmp_path, "--rerun-incomplete", *options)
    assert call.status != 0
    assert "--unlock" in call.screen
    assert call_here(tmp_path, "--unlock", *options).status == 0
    call = call_here(tmp_path, "--rerun-incomplete", *options)
    assert call.status == 0, call.screen
    assert call.jobs["train"] == 1
    for path in runs.rglob("*.tsv"):
        expected = finished / path.relative_to(tmp_path)
        assert path.read_bytes() == expected.read_bytes(), path
    assert len(list(runs.rglob("metrics.tsv"))) == 2
    assert not list(runs.rglob("checkpoint.pt"))


def test_model_on_new_images(finished, tmp_path):
    """`snakemake predict`: one file of four is damaged, then removed; then another comes."""
    folder, new = tmp_path / "copy", tmp_path / "new"
    shutil.copytree(finished, folder)
    new.mkdir()
    for path in sorted((finished / "results/data/nuclei/noisy/n10").glob("*.tif"))[:3]:
        shutil.copy(path, new)
    (new / "torn.tif").write_bytes(b"torn")
    images = f"predict={{images: {new}, method: sequential, chunk: 2}}"
    options = ("--cores", "2", "predict", "--config", images)
    call = call_here(folder, *options)
    assert call.status != 0
    assert call.jobs == {"predict_chunk": 2, "predict": 1}
    assert "1 of 4 images could not be predicted" in call.screen
    out = folder / "results/predicted/new"
    assert len(list((out / "labels").iterdir())) == 3, "what could be done is kept"
    call = dry_run(folder, *options)
    assert call.jobs == {"predict_chunk": 1, "predict": 1}, "that of the damaged one"

    (new / "torn.tif").unlink()
    call = call_here(folder, *options)
    assert call.status == 0, call.screen
    for kind in ("denoised", "labels", "overlays", "objects"):
        assert len(list((out / kind).iterdir())) == 3
    assert (out / "objects.csv").exists()
    assert "Nothing to be done" in dry_run(folder, *options).screen
    shutil.copy(path, new / "torn.tif")
    call = dry_run(folder, *options)
    assert call.jobs == {"predict_chunk": 1, "predict": 1}, "the others have nothing to do"


@pytest.mark.skipif(sys.platform != "linux", reason="slots are names of Linux")
def test_jobs_take_the_gpu_that_is_free(finished, tmp_path, monkeypatch):
    """Two invented GPUs, of which another process has the first; then its second slot as well."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    busy, free = (f"GPU-{uuid.uuid4()}" for _ in range(2))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", busy)
    code = "from denoiseg_flow.jobs.gpu_slots import take_slot; take_slot(); print(); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as other:
        other.stdout.readline()
        for gpus, expected, options in [
            ((busy, free), free, ()),
            ((busy,), busy, ("--resources", "gpu=2", "--set-resources", "suggest:jobs_per_gpu=2")),
        ]:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(gpus))
            only = ("--cores", "2", "--forcerun", "suggest", "--until", "suggest")
            call = call_snakemake(folder, *options, *only)
            assert call.status == 0, call.screen
            log = (folder / "results/logs/nuclei/suggest/n10.log").read_text()
            assert f"using GPU {expected} of {', '.join(gpus)}" in log
            assert "waiting" not in log
            # PyTorch is a build for the CPU, or does not find what is invented.
            for text in (log, call.screen):
                assert "not using the GPU: PyTorch" in text
        other.communicate(b"\n")


def test_five_annotated_images(finished, tmp_path):
    """All of them are trained on and scored, by cross-validation; two have no mask."""
    prepared = finished / "results/data/nuclei/prepared"
    for kind, count in (("images", 7), ("masks", 5)):
        (tmp_path / kind).mkdir()
        for path in sorted((prepared / kind).glob("*.tif"))[:count]:
            shutil.copy(path, tmp_path / kind)
    call = call_here(
        tmp_path,
        *("--cores", "2", "--config", "predicted_images=all", FEW_STEPS),
        "datasets={mine: {source: folder, images: images, masks: masks, "
        "split: {cross_validate_below: 8}}}",
        "grid={datasets: [mine], noises: [n0], methods: [sequential, denoiseg], "
        "n_annotated: [all]}",
    )
    assert call.status == 0, call.screen
    assert call.jobs["train"] == 3
    results = tmp_path / "results"
    metrics = pd.read_csv(results / "tables/metrics.csv")
    assert set(metrics["image"]) == {f"sim_000{number}" for number in range(5)}
    assert set(metrics["metric"]) >= {"AP", "SEG"} and set(metrics["n_annotated"]) == {5}
    for method in ("sequential", "denoiseg"):
        run = results / f"runs/mine/n0/{method}/annotated5/seed1"
        assert len(list((run / "predictions/labels").iterdir())) == 7
        log = (results / f"logs/mine/n0/{method}/annotated5/seed1/train.log").read_text()
        assert "on 5 cross-validated images" in log
        assert not list(run.glob("checkpoint*"))
        losses = pd.read_csv(run / "metrics.tsv", sep="\t").query("metric.str.startswith('loss')")
        assert len(losses) == (5 if method == "denoiseg" else 0), "no clean image is known"
    report = (results / "report.html").read_text()
    assert "The few annotated images of mine were cross-validated" in report
    assert "Denoised images of mine, noise n0.</strong> Only denoiseg was scored" in report
    suggested = pd.read_csv(results / "suggestions/mine_n0.csv")
    assert set(suggested["image"]) == {"sim_0005", "sim_0006"}
    assert "The first 2 images to annotate" in report
    assert html.escape(captions.FIGURES["suggestions"][1]) in report


def test_snakemake_report(finished, tmp_path, monkeypatch):
    """Snakemake's own report, offline: every request goes to a proxy that does not exist."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    archive = tmp_path / "report.zip"
    call = call_here(finished, "--report", archive)
    assert call.status == 0, call.screen
    with zipfile.ZipFile(archive) as opened:
        names = {path.rpartition("/")[2] for path in opened.namelist()}
        text = opened.read("report/report.html").decode()
    assert names >= {f"{name}.html" for name in TABLES} | {f"{name}.png" for name in FIGURES}
    text = text.replace("\\n", " ")
    assert "Every combination of dataset, noise level, method" in text
    for figure in FIGURES:
        assert caption_of(figure) in text


def test_captions_are_in_the_report_and_in_the_tables_that_snakemake_shows(finished):
    """All images of this study are annotated, so the page suggests none."""
    page = (finished / "results/report.html").read_text()
    for figure in set(FIGURES) - {"suggestions_n10"}:
        title, caption = captions.FIGURES[figure.removesuffix("_n10")]
        assert title in page and html.escape(caption) in page
    for table in TABLES:
        title, caption = captions.TABLES[table]
        shown = (finished / f"results/tables/{table}.html").read_text()
        for text in (title, caption):
            beginning = html.escape(text.partition("{")[0])
            assert beginning in page and beginning in shown


def test_snakemake_report_of_a_paper(tmp_path):
    """With the tables and figures that other studies have."""
    small = "nuclei: {size: 32, n_nuclei: [2, 3]}"
    names = ("few", "more")
    combined = ", ".join(
        f"{name}: {{source: combine, of: [nuclei], n_train: {count}}}"
        for name, count in zip(names, (2, 4), strict=True)
    )
    study = (
        *("--config", f"datasets={{{small}, {combined}}}", "paper=autoencoder", FEW_STEPS),
        "grid={datasets: [few, more], methods: [median, n2s], reference: n2s}",
    )
    tables = ("denoising", "self_supervision", "paper", "paired")
    figures = ("denoising_levels", "training_curves", "calibration", "training_sizes")
    wanted = [
        *(f"results/tables/{name}.html" for name in tables),
        *(f"results/figures/few/{name}.png" for name in figures),
    ]
    call = call_here(tmp_path, *study, "--cores", "2", "--", *wanted)
    assert call.status == 0, call.screen
    archive = tmp_path / "report.zip"
    call = call_here(tmp_path, *study, "--report", archive, "--", *wanted)
    assert call.status == 0, call.screen
    with zipfile.ZipFile(archive) as opened:
        shown = {path.rpartition("/")[2] for path in opened.namelist()}
        text = opened.read("report/report.html").decode().replace("\\n", " ")
    assert shown >= {path.rpartition("/")[2] for path in wanted}
    for figure in figures:
        assert caption_of(figure) in text


@pytest.fixture(scope="module")
def remote(tmp_path_factory, repo):
    """Environment in which https://github.com/laboratory/denoiseg-flow is a copy of this tree."""
    folder = tmp_path_factory.mktemp("remote")
    copy = folder / "denoiseg-flow"
    for part in ("config", "envs", "profiles", "workflow"):
        shutil.copytree(repo / part, copy / part)
    shutil.copy(repo / "Snakefile", copy)
    author = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (
        ["init", "--quiet"],
        ["add", "--all", "--force"],
        [*author, "commit", "--quiet", "--message", "copy"],
        ["tag", "v1"],
    ):
        subprocess.run(["git", *command], cwd=copy, check=True)
    return os.environ | {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{copy}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/laboratory/denoiseg-flow",
    }


MODULE = """
configfile: "study.yaml"


module denoiseg_flow:
    snakefile:
        {snakefile}
    config:
        config
    {where}


use rule * from denoiseg_flow as denoiseg_flow_*


rule everything:
    default_target: True
    input:
        rules.denoiseg_flow_all.input,
        "n_scores.txt",


rule count_scores:
    input:
        metrics=rules.denoiseg_flow_aggregate.output.metrics,
    output:
        "n_scores.txt",
    shell:
        "wc -l < {{input.metrics}} > {{output}}"
"""
GITHUB = 'github("laboratory/denoiseg-flow", path="Snakefile", tag="v1")'


def import_workflow(folder, config, snakefile, where, *options, environment=None):
    """Run a workflow that imports this one."""
    (folder / "study.yaml").write_text(yaml.safe_dump(config))
    (folder / "Snakefile").write_text(MODULE.format(snakefile=snakefile, where=where))
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *options],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


def test_module_with_a_prefix(tmp_path, config, repo):
    result = import_workflow(
        tmp_path, config, f'"{repo}/Snakefile"', 'prefix:\n        "elsewhere"', "--dry-run"
    )
    assert result.returncode == 0, result.stdout
    assert "    output: elsewhere/results/report.html" in result.stdout
    assert "rule count_scores:" in result.stdout
    assert " results/" not in result.stdout


def test_module_from_github_gives_the_same_scores(finished, tmp_path, config, remote):
    """Of one method, in a folder of another name; not also its figures and report."""
    config = config | {"grid": config["grid"] | {"methods": ["n2v"], "reference": "n2v"}}
    where = 'pathvars:\n        results="elsewhere",'
    options = ("--cores", "2", "n_scores.txt")
    result = import_workflow(tmp_path, config, GITHUB, where, *options, environment=remote)
    assert result.returncode == 0, result.stdout
    for name in ("history.tsv", "metrics.tsv"):
        path = f"runs/nuclei/n10/n2v/annotated0/seed1/{name}"
        expected = (finished / "results" / path).read_bytes()
        assert (tmp_path / "elsewhere" / path).read_bytes() == expected
    assert int((tmp_path / "n_scores.txt").read_text()) > 1
    assert {path.name for path in tmp_path.iterdir()} == {
        "Snakefile", "study.yaml", "n_scores.txt", "elsewhere", ".snakemake",
    }  # fmt: skip
