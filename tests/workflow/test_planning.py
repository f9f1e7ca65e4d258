"""What Snakemake plans, without running anything, for every config of the repository."""

import re
import shutil

import pytest
import yaml
from PIL import Image
from snakemake_call import call_here, dry_run

from denoiseg_flow.methods.pretrained import PRETRAINED
from denoiseg_flow.models import weights
from denoiseg_flow.models.model_file import load_model, save_model

CONFIGS = {
    "config", "test", "prior", "prior_membranes", "prior_volumes", "dsb2018", "own_images",
    "volumes", "n2v", "noise2self", "autoencoder",
    "paper/dsb2018", "paper/flywing", "paper/mouse",
    "paper/n2v", "paper/noise2self", "paper/autoencoder",
}  # fmt: skip


def train_methods(call):
    """The method of every planned training."""
    return re.findall(
        r"^rule train:\n(?:    .*\n)*?    wildcards: .*\bmethod=([^,\n]+)",
        call.screen,
        re.MULTILINE,
    )


def test_test_config(tmp_path):
    call = dry_run(tmp_path)
    assert call.status == 0, call.screen
    assert call.jobs == {
        "simulate": 1, "prepare": 1, "split": 1, "add_noise": 1, "check": 1,
        "train": 5, "predict_run": 5, "score": 5,
        "aggregate": 1, "measure_costs": 1, "plot": 4, "plot_panel": 1, "trust": 1, "suggest": 1,
        "report": 1, "all": 1,
    }  # fmt: skip


def test_jobs_on_the_cpu_ask_for_no_gpu(tmp_path):
    asked = [
        dry_run(tmp_path, "--config", f"device={device}").screen.count("gpu=1")
        for device in ("auto", "cpu")
    ]
    assert asked == [12, 0]  # trainings, predictions, trust and suggestions


def test_default_config(tmp_path):
    """Two noises and seeds; three methods use no mask, three need some, two can do with none."""
    call = dry_run(tmp_path, config=None)
    assert call.status == 0, call.screen
    assert call.jobs["train"] == 2 * 2 * (3 + 3 + 2 * 2)
    assert call.jobs["split"] == call.jobs["add_noise"] == 2
    assert not (tmp_path / "results").exists()


def test_a_training_from_a_model_file_reads_it(tmp_path):
    """A method without annotated images, and two with; the file is an input of the workflow."""
    model = tmp_path / "a.pt"
    shutil.copy(weights.FOLDER / PRETRAINED["simulated_objects"].file, model)
    save_model(load_model(model), model)
    how = "init: a.pt, recipe: finetune"
    call = dry_run(
        tmp_path,
        "--config",
        f"methods={{itself: {{{how}}}, joint: {{{how}, target: blind_spot, alpha: 0.5}}}}",
        "datasets={nuclei: {size: 96}}",
        "grid={methods: [itself, joint], n_annotated: [0, 2], reference: joint}",
    )
    assert call.status == 0, call.screen
    assert sorted(train_methods(call)) == ["itself", "itself", "joint"]
    inputs = re.findall(r"^rule train:\n    input: (.*)$", call.screen, re.MULTILINE)
    assert [each.split(", ")[-1] for each in inputs] == ["a.pt"] * 3
    assert call.jobs["simulate_rehearsal"] == 0


def test_simulated_images_of_trainings_from_the_pretrained_network(tmp_path):
    """They are made once, for the trainings that read them."""
    for counts, expected in (("[0]", 0), ("[0, 2, 4]", 1)):
        grid = f"grid={{methods: [n2v, pretrained], n_annotated: {counts}, reference: pretrained}}"
        call = dry_run(tmp_path, "--config", grid)
        assert call.status == 0, call.screen
        assert call.jobs["simulate_rehearsal"] == expected
        assert call.screen.count("rehearsal/simulated_objects.npz") > 2 * expected - 1
    joint = (
        "grid={methods: [denoiseg_pretrained], n_annotated: [0], reference: denoiseg_pretrained}"
    )
    assert dry_run(tmp_path, "--config", joint).jobs["simulate_rehearsal"] == 1


def test_combined_dataset(tmp_path):
    """Its parts are made although the grid does not select them, once, and divided as the first."""
    call = dry_run(
        tmp_path,
        "--config",
        "datasets={lines: {source: simulate, structure: filaments, n_images: 6, size: 64}, "
        "both: {source: combine, of: [nuclei, lines]}}",
        "grid={datasets: [nuclei, both]}",
    )
    assert call.status == 0, call.screen
    assert call.jobs["simulate"] == 2
    assert call.jobs["prepare"] == 3
    assert call.jobs["split"] == call.jobs["add_noise"] == 2
    (inputs,) = re.findall(
        r"^rule prepare:\n    input: (.+)\n    output: results/data/both", call.screen, re.MULTILINE
    )
    assert inputs == "results/data/nuclei/prepared, results/data/lines/prepared"


@pytest.fixture
def folders(tmp_path):
    """Folders of 70 images and masks; planning looks at their names, and at the first one."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for number in range(70):
            Image.new("L", (1, 1)).save(tmp_path / kind / f"image_{number:02}.tif")
    return tmp_path


@pytest.mark.parametrize(
    ("config", "dataset", "keys"),
    [
        ("dsb2018", "dsb2018", ("images", "masks", "clean")),
        ("own_images", "my_images", ("images", "masks")),
    ],
)
def test_config_of_folders(folders, config, dataset, keys):
    where = {key: folders / ("masks" if key == "masks" else "images") for key in keys}
    paths = ", ".join(f"{key}: {path}" for key, path in where.items())
    call = dry_run(folders, "--config", f"datasets={{{dataset}: {{{paths}}}}}", config=config)
    assert call.status == 0, call.screen
    assert call.jobs["prepare"] == 1
    assert call.jobs["simulate"] == call.jobs["fetch"] == 0
    assert call.jobs["train"] == len(train_methods(call)) > 0


@pytest.mark.parametrize(
    ("name", "trainings"), [("dsb2018", 1650), ("flywing", 825), ("mouse", 825)]
)
def test_grid_of_the_paper(tmp_path, repo, name, trainings):
    """11 methods x 3 noise levels x 10 (or 5) label counts, and n2v once; one seed of five."""
    seeds = yaml.safe_load((repo / f"config/paper/{name}.yaml").read_text())["grid"]["seeds"]
    trainings //= len(seeds)
    call = dry_run(tmp_path, "--config", f"grid={{seeds: {seeds[:1]}}}", config=f"paper/{name}")
    assert call.status == 0, call.screen
    methods = train_methods(call)
    assert len(methods) == call.jobs["train"] == trainings + 3
    assert sum(method != "n2v" for method in methods) == trainings
    assert call.jobs["predict_run"] == call.jobs["score"] == call.jobs["train"]
    assert call.jobs["fetch"] == 1


@pytest.mark.parametrize(
    ("name", "trainings"),
    # Datasets x noise levels x methods x seeds.
    [("n2v", 2 * 6 * 2), ("noise2self", 2 * 7 * 2), ("autoencoder", 3 * 2 * 3 * 2)],
)
def test_denoisers_on_simulated_images(tmp_path, name, trainings):
    call = dry_run(tmp_path, config=name)
    assert call.status == 0, call.screen
    assert call.jobs["train"] == call.jobs["predict_run"] == call.jobs["score"] == trainings
    assert "tables/paper.csv" in call.screen
    assert "label_curves" not in call.screen and "segmentation.csv" not in call.screen


@pytest.mark.parametrize(
    ("name", "folders_of", "methods", "trainings"),
    [
        ("n2v", ["bsd68"], "supervised, n2n, n2v, n2v2", 4 * 3),
        ("noise2self", ["hanzi"], "nlm, n2s, n2s_dncnn, n2n, supervised", 5 * 3),
        ("autoencoder", ["mammograms", "dental"], "median, nlm, dae", 4 * 3 * 3 * 3),
    ],
)
def test_papers_on_denoising(tmp_path, name, folders_of, methods, trainings):
    """On folders of images that users have, here of single pixels; without the optional BM3D."""
    for dataset in folders_of:
        for number in range(320):
            subset = ["train", "test"][number % 2] if name == "n2v" else ""
            (tmp_path / dataset / subset).mkdir(parents=True, exist_ok=True)
            Image.new("L", (1, 1)).save(tmp_path / dataset / subset / f"{number:03}.tif")
    paths = ", ".join(f"{d}: {{images: {d}, clean: {d}}}" for d in folders_of)
    call = dry_run(
        tmp_path,
        *("--config", f"datasets={{{paths}}}", f"grid={{methods: [{methods}]}}"),
        config=f"paper/{name}",
    )
    assert call.status == 0, call.screen
    assert call.jobs["train"] == trainings
    assert len(train_methods(call)) == trainings


def test_dataset_without_masks_beside_one_with(tmp_path):
    """Methods that segment are left out there, and nothing else."""
    call = dry_run(
        tmp_path,
        "--config",
        "datasets={lines: {source: simulate, structure: filaments, n_images: 6, size: 64}}",
        "grid={datasets: [nuclei, lines]}",
    )
    assert call.status == 0, call.screen
    assert call.jobs["train"] == 5 + 1
    assert "figures/nuclei/label_curves" in call.screen
    assert "figures/lines/label_curves" not in call.screen
    assert "figures/lines/denoising_levels" in call.screen


def test_every_job_of_more_than_seconds_is_measured(repo):
    text = "".join(path.read_text() for path in repo.glob("workflow/rules/*.smk"))
    rules = dict(re.findall(r"^rule (\w+):\n((?:    .*\n|\n(?=    ))*)", text, re.MULTILINE))
    unmeasured = {name for name, body in rules.items() if "    benchmark:\n" not in body}
    assert len(rules) > len(unmeasured)
    assert unmeasured == {"split", "measure_costs", "plan", "tables_partial"}


def test_every_config_is_planned_here(repo):
    found = {
        str(path.relative_to(repo / "config").with_suffix(""))
        for path in (repo / "config").rglob("*.yaml")
    }
    assert found == CONFIGS


def test_lint(tmp_path):
    call = call_here(tmp_path, "--lint", config=None)
    assert call.status == 0, call.screen
    assert "Lints for" not in call.screen
