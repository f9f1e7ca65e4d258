"""Every config that is shipped, run small from its beginning to Snakemake's own report."""

import numpy as np
import pytest
import tifffile
import yaml
from snakemake.utils import update_config
from snakemake_call import call_snakemake

from denoiseg_flow.methods.classical import is_available

SMALL = {
    "depth": 2, "filters": 2, "patch_size": 32, "batch_size": 4, "epochs": 1, "steps_per_epoch": 4,
    "validation_patches": 4,
}  # fmt: skip
N_IMAGES = 16


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Images of bright squares, masks of them, and the images without noise."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for name in ("images", "masks", "clean"):
        (folder / name).mkdir()
    for number in range(N_IMAGES):
        mask = np.zeros((64, 64), np.uint8)
        for label, (y, x) in enumerate(16 * np.argwhere(random.random((4, 4)) < 0.4), start=1):
            mask[y + 2 : y + 13, x + 2 : x + 13] = label
        clean = (50 + 100 * (mask > 0)).astype(np.float32)
        noisy = (clean + random.normal(0, 5, clean.shape)).astype(np.float32)
        for name, image in (("images", noisy), ("masks", mask), ("clean", clean)):
            tifffile.imwrite(folder / name / f"{number:02}.tif", image)
    return folder


def shrink(config, folders):
    """Take a config as it is but for its size, its data from elsewhere, and all but one seed."""
    for name, recipe in config["recipes"].items():
        # Pretrained networks have their own size.
        kept = ("depth", "filters") if name.startswith("finetune") else ()
        recipe |= SMALL | {key: recipe[key] for key in kept}
    for spec in config["datasets"].values():
        if spec["source"] == "simulate":
            spec |= {"n_images": N_IMAGES, "size": 64, "n_nuclei": [3, 6]}
        elif spec["source"] == "combine":
            spec |= {"n_train": 4 + spec["n_train"] // 100} if "n_train" in spec else {}
        else:
            kept = {key: spec[key] for key in ("published",) if key in spec}
            kinds = {"images", *(key for key in ("masks", "clean") if key in spec)}
            kinds |= {"masks", "clean"} if spec["source"] == "remote" else set()
            spec.clear()
            spec |= {"source": "folder"} | kept | {kind: str(folders / kind) for kind in kinds}
    grid = config["grid"]
    grid["methods"] = [
        name
        for name in grid["methods"]
        if is_available(config["methods"][name].get("classical", "median"))
    ]
    grid["noises"], grid["seeds"] = grid["noises"][-1:], [1]
    grid["n_annotated"] = [2]
    return config


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        *(
            "config",
            "own_images",
            "dsb2018",
            "n2v",
            "noise2self",
            "autoencoder",
            "volumes",
            "prior",
            "prior_membranes",
            "prior_volumes",
            "test",
        ),
        *(f"paper/{name}" for name in ("dsb2018", "flywing", "mouse")),
        *(f"paper/{name}" for name in ("n2v", "noise2self", "autoencoder")),
    ],
)
def test_every_config(name, tmp_path, repo, folders):
    config = {}
    for each in dict.fromkeys(["config", name]):
        update_config(config, yaml.safe_load((repo / f"config/{each}.yaml").read_text()))
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(shrink(config, folders)))
    options = ("--configfile", path, "--cores", "2")
    call = call_snakemake(tmp_path, *options, config=None)
    assert call.status == 0, call.screen
    archive = tmp_path / "report.zip"
    call = call_snakemake(tmp_path, *options, "--report", archive, config=None)
    assert call.status == 0 and archive.exists(), call.screen
    assert config["title"] in (tmp_path / "results/report.html").read_text()


def test_no_config_is_forgotten(repo):
    (mark,) = (each for each in test_every_config.pytestmark if each.name == "parametrize")
    found = {
        str(path.relative_to(repo / "config").with_suffix(""))
        for path in (repo / "config").rglob("*.yaml")
    }
    assert set(mark.args[1]) == found
