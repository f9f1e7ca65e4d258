"""What is wrong with a config, in sentences; and its defaults."""

import re
from copy import deepcopy

import pytest
import yaml
from jsonschema import Draft202012Validator

from denoiseg_flow.errors import InputError
from denoiseg_flow.methods.definition import Method, Recipe
from denoiseg_flow.reporting import captions
from denoiseg_flow.study import contents, grid
from denoiseg_flow.study.configuration import check, fill_defaults, read_numbers
from denoiseg_flow.study.feasibility import check_feasible
from denoiseg_flow.study.grid import Grid

SHIPPED = [
    [],
    ["test.yaml"],
    ["dsb2018.yaml"],
    ["own_images.yaml"],
    ["n2v.yaml"],
    ["noise2self.yaml"],
    ["autoencoder.yaml"],
    ["volumes.yaml"],
    ["prior.yaml"],
    ["prior_membranes.yaml"],
    ["prior_volumes.yaml"],
    ["paper/dsb2018.yaml"],
    ["paper/flywing.yaml"],
    ["paper/mouse.yaml"],
    ["paper/n2v.yaml"],
    ["paper/noise2self.yaml"],
    ["paper/autoencoder.yaml"],
]


def message(config, schema):
    with pytest.raises(InputError) as caught:
        check(config, schema)
    return str(caught.value)


def put(config, path, value):
    """Set the value at a dotted path, where a list's place is a number."""
    *parents, last = path.split(".")
    holder = config
    for key in parents:
        holder = holder[int(key)] if isinstance(holder, list) else holder[key]
    holder[int(last) if isinstance(holder, list) else last] = value


@pytest.mark.parametrize(
    "path, value, sentence",
    [
        ("metods", {}, "unknown config key 'metods'; did you mean 'methods'?"),
        (
            "grid.seed",
            [1],
            "unknown config key 'grid.seed'; did you mean 'seeds'?",
        ),
        (
            "datasets.nuclei.n_image",
            3,
            "unknown config key 'datasets.nuclei.n_image'; did you mean 'n_images'?",
        ),
        (
            "noises.n10.zzz",
            1,
            "unknown config key 'noises.n10.zzz'; available: kind, sigma, factor, "
            "photons, dropped, flipped, length, axis, seed",
        ),
        ("device", "gpu", "config key 'device' is 'gpu'; available: auto, cpu, cuda"),
        (
            "device",
            "mps",
            "config key 'device' is 'mps', but GPUs of Apple lack the float64 numbers that "
            "training computes with; write 'cpu', or 'auto', which takes the CPU there",
        ),
        ("device", ["mps"], "config key 'device' is ['mps']; available: auto, cpu, cuda"),
        (
            "methods.n2v.target",
            "cleaner",
            "config key 'methods.n2v.target' is 'cleaner'; available: blind_spot, second_noisy, "
            "clean, none",
        ),
        (
            "recipes.fast.depth",
            "two",
            "config key 'recipes.fast.depth' is 'two', but must be of type integer",
        ),
        (
            "recipes.fast.annotated_share",
            "half",
            "config key 'recipes.fast.annotated_share' is 'half', but must be of type number or "
            "null",
        ),
        ("methods.n2v", None, "config key 'methods.n2v' is None, but must be of type object"),
        ("grid.seeds", 1, "config key 'grid.seeds' is 1, but must be of type array"),
        ("grid.seeds", [], "config key 'grid.seeds' is an empty list; name at least one entry"),
        (
            "datasets.nuclei.n_nuclei",
            [5],
            "config key 'datasets.nuclei.n_nuclei': [5] is too short; Fewest and most nuclei in an "
            "image.",
        ),
        (
            "recipes.fast.learning_rate",
            0,
            "config key 'recipes.fast.learning_rate': 0 is less than or equal to the minimum of 0; "
            "Adam's learning rate.",
        ),
        (
            "methods.n2v.alpha",
            2,
            "config key 'methods.n2v.alpha': 2 is greater than the maximum of 1; Weight of the "
            "denoising loss; 0 only segments and 1 only denoises.",
        ),
        (
            "grid.seeds",
            [1, 1],
            "config key 'grid.seeds': [1, 1] has non-unique elements; Each seed draws its own "
            "annotated images and initial weights.",
        ),
        (
            "grid.n_annotated.1",
            -1,
            "config key 'grid.n_annotated.1': -1 is less than the minimum of 0; 0 is for methods "
            "that start from a pretrained network",
        ),
        (
            "datasets.nuclei.split",
            "givn",
            "config key 'datasets.nuclei.split': 'givn' does not match '^given$'; Fractions of the "
            "annotated images, or where their subsets, groups and ranks are given; 'given' for the "
            "fixed split of an archive.",
        ),
        (
            "methods.my/method",
            {},
            "config key 'methods': 'my/method' does not match '^[A-Za-z0-9][A-Za-z0-9_.-]*$'; "
            "names become folder names, so write letters, digits, '_', '-' and '.' only",
        ),
        (
            "noises",
            {10: {}},
            "config key 'noises' has the name 10, which YAML reads as a number; write it in quotes",
        ),
        (
            "datasets",
            yaml.safe_load("on: {}"),
            "config key 'datasets' has the name True, which YAML reads as yes or no; write it in "
            "quotes",
        ),
        (
            "datasets",
            yaml.safe_load("2024-01-31: {}"),
            "config key 'datasets' has the name 2024-01-31, which YAML reads as a date; write it "
            "in quotes",
        ),
        (
            "grid.datasets",
            [2024],
            "config key 'grid.datasets.0' is 2024, which YAML reads as a number; write it in "
            "quotes",
        ),
        (
            "datasets",
            {},
            "config key 'datasets': {} should be non-empty; The datasets that can be studied, by "
            "name.",
        ),
    ],
)
def test_sentences(config, schema, path, value, sentence):
    put(config, path, value)
    assert message(config, schema) == sentence


@pytest.mark.parametrize(
    "path, key, sentence",
    [
        (
            "",
            "recipe",
            "the config lacks 'recipe'; write it: The entry of recipes that all methods are "
            "trained by.",
        ),
        (
            "recipes.fast",
            "depth",
            "config key 'recipes.fast' lacks 'depth'; write it: Down-samplings of the U-Net.",
        ),
        (
            "datasets.nuclei",
            "source",
            "config key 'datasets.nuclei' lacks 'source'; write it: Where the images come from.",
        ),
        (
            "noises.n10",
            "kind",
            "config key 'noises.n10' lacks 'kind'; write it: Distribution of the noise; none "
            "leaves the images as they are.",
        ),
    ],
)
def test_missing_keys(config, schema, path, key, sentence):
    holder = config
    for step in path.split(".") if path else []:
        holder = holder[step]
    del holder[key]
    assert message(config, schema) == sentence


@pytest.mark.parametrize(
    "spec, expected",
    [
        ({"source": "folder"}, "config key 'datasets.own' lacks 'images'; write it: Folder of"),
        (
            {"source": "remote", "format": "folder", "url": "https://a.b/c.zip"},
            "config key 'datasets.own' lacks 'images'; write it",
        ),
        (
            {"source": "remote", "format": "denoiseg_npz"},
            "config key 'datasets.own' lacks 'url'; write it: Address of a zip archive",
        ),
        (
            {"source": "remote", "format": "denoiseg_npz", "url": "ftp://a.b/c.zip"},
            "config key 'datasets.own.url': 'ftp://a.b/c.zip' does not match '^(https?|s3)://'; "
            "Address",
        ),
        (
            {"source": "folder", "images": "a", "n_images": 3},
            "unknown config key 'datasets.own.n_images'; did you mean 'images'?",
        ),
        (
            {"source": "simulate", "images": "a"},
            "unknown config key 'datasets.own.images'; did you mean 'n_images'?",
        ),
        (
            {"source": "simulate", "depth": 1},
            "config key 'datasets.own.depth': 1 is less than the minimum of 2; Number of planes",
        ),
        (
            {"source": "simulate", "depth": 8, "z_step": 0},
            "config key 'datasets.own.z_step': 0 is less than the minimum of 0.1; Distance of the",
        ),
    ],
)
def test_keys_depend_on_the_source(config, schema, spec, expected):
    config["datasets"]["own"] = spec
    assert message(config, schema).startswith(expected)


@pytest.mark.parametrize("names", SHIPPED, ids=lambda names: "+".join(names) or "config.yaml")
@pytest.mark.usefixtures("elsewhere")
def test_shipped_configs_pass(read_config, schema, names):
    config = read_config(*names)
    check(config, schema)
    before = deepcopy(config)
    read_numbers(config, schema)
    assert config == before
    fill_defaults(config, schema)
    check(config, schema)
    study = grid.Grid(config)
    check_feasible(study)
    assert study.scored_runs
    datasets = config["grid"]["datasets"]
    drawn = {figure for dataset in datasets for figure in contents.figures(study, dataset)}
    assert drawn and drawn <= captions.FIGURES.keys()


def test_every_shipped_config_is_tested(root):
    files = {str(path.relative_to(root / "config")) for path in root.glob("config/**/*.yaml")}
    assert files == {"config.yaml"} | {name for names in SHIPPED for name in names}


DIVIDED = {"test": 0.25, "seed": 0, "cross_validate_below": 0}


def test_defaults_at_every_level(schema, study):
    config = study
    config["datasets"] = {
        "simulated": {"source": "simulate"},
        "folder": {"source": "folder", "images": "a", "split": {"val": 0.5}},
        "remote": {
            "source": "remote",
            "url": "https://a.b/c.zip",
            "format": "denoiseg_npz",
            "split": "given",
        },
    }
    config["grid"]["datasets"] = ["simulated"]
    check(config, schema)
    fill_defaults(config, schema)
    assert config["title"] == "DenoiSeg-Flow"
    assert (config["notes"], config["device"], config["save_probabilities"]) == ([], "auto", True)
    assert "pathvars" not in config
    assert config["datasets"] == {
        "simulated": {
            "source": "simulate",
            "structure": "nuclei",
            "varied": False,
            "n_images": 48,
            "size": 128,
            "n_nuclei": [8, 22],
            "seed": 0,
            "split": DIVIDED | {"val": 0.15},
        },
        "folder": {
            "source": "folder",
            "images": "a",
            "binary_masks": "warn",
            "background_label": 0,
            "ignore_label": None,
            "split": DIVIDED | {"val": 0.5},
        },
        "remote": {
            "source": "remote",
            "url": "https://a.b/c.zip",
            "format": "denoiseg_npz",
            "binary_masks": "warn",
            "split": "given",
        },
    }
    assert config["noises"]["n10"] == {"kind": "gaussian", "sigma": 10, "seed": 0}
    assert config["grid"]["reference"] == "denoiseg"
    assert config["methods"]["baseline"] == {
        "input": "noisy",
        "target": "none",
        "masking": "uniform",
        "neighbourhood": 11,
        "struct_mask": None,
        "grid": 4,
        "mask_channel": False,
        "network": "unet",
        "alpha": 0,
        "init": None,
        "rehearse": None,
        "recipe": None,
        "planes": False,
        "each_image": False,
        "classical": None,
        "parameter": None,
        "noise_sigma": "estimated",
        "segmenter": None,
        "published": "baseline",
    }
    fast = config["recipes"]["fast"]
    assert (fast["batch_norm_momentum"], fast["masked_fraction"]) == (0.1, 1 / 64)
    assert fast["validation_patches"] == 256
    other = config["recipes"]["other"]
    assert (other["batch_norm_momentum"], other["validation_patches"]) == (0.01, 32)


def test_defaults_never_change_what_is_there(schema, config):
    before = deepcopy(config)
    fill_defaults(config, schema)
    assert config == before


def test_defaults_are_not_shared(schema, study):
    """Changing one filled config must change neither the schema nor another config."""
    original = deepcopy(schema)
    first, second = study, deepcopy(study)
    for config in (first, second):
        config["datasets"]["more"] = {"source": "simulate"}
        fill_defaults(config, schema)
    first["datasets"]["nuclei"]["split"]["val"] = 0.9
    first["datasets"]["nuclei"]["n_nuclei"].append(1)
    first["notes"].append("changed")
    assert schema == original
    assert second["datasets"]["nuclei"]["split"]["val"] == 0.15
    assert second["datasets"]["more"]["n_nuclei"] == [8, 22]


def test_text_becomes_numbers_where_numbers_are_wanted(schema, config):
    put(config, "title", "2018")
    put(config, "grid.seeds", ["3", "4"])
    put(config, "recipes.fast.learning_rate", "0.01")
    put(config, "recipes.fast.epochs", "5")
    put(config, "recipes.fast.annotated_share", "null")
    put(config, "save_probabilities", "false")
    put(config, "datasets.nuclei.split", {"val": "0.5", "test": "0.25", "seed": "1"})
    read_numbers(config, schema)
    assert config["title"] == "2018"
    assert config["grid"]["seeds"] == [3, 4]
    fast = config["recipes"]["fast"]
    assert (fast["learning_rate"], fast["epochs"], fast["annotated_share"]) == (0.01, 5, None)
    assert config["save_probabilities"] is False
    assert config["datasets"]["nuclei"]["split"] == {"val": 0.5, "test": 0.25, "seed": 1}
    check(config, schema)


@pytest.mark.parametrize("text", ["two", "2.5", "[1, 2", "@", ""])
def test_text_that_is_no_number_stays_and_is_refused(schema, config, text):
    put(config, "recipes.fast.epochs", text)
    read_numbers(config, schema)
    assert config["recipes"]["fast"]["epochs"] == text
    assert message(config, schema) == (
        f"config key 'recipes.fast.epochs' is {text!r}, but must be of type integer"
    )


@pytest.mark.parametrize("text", ["4e-4", "1E3", "4.0e-4"])
def test_scientific_notation_without_a_point_is_a_number(schema, config, text):
    """YAML 1.1 reads 4e-4 as text, in files as on the command line."""
    config["recipes"]["fast"] |= yaml.safe_load(f"learning_rate: {text}")
    read_numbers(config, schema)
    assert config["recipes"]["fast"]["learning_rate"] == float(text)
    check(config, schema)


def keys_of(part, schema, path=""):
    """Yield (path, key, what the schema says of it) of every key at every depth."""
    if "$ref" in part:
        part = schema["$defs"][part["$ref"].removeprefix("#/$defs/")]
    for key, sub in part.get("properties", {}).items():
        said = schema["$defs"][sub["$ref"].removeprefix("#/$defs/")] if "$ref" in sub else sub
        yield path, key, said
        yield from keys_of(sub, schema, f"{path}{key}.")
    if isinstance(part.get("additionalProperties"), dict):
        yield from keys_of(part["additionalProperties"], schema, f"{path}*.")
    for branch in part.get("allOf", []):
        yield from keys_of(branch["then"], schema, path)


def test_the_schema_is_a_schema(schema):
    Draft202012Validator.check_schema(schema)


def test_every_key_has_a_description(schema):
    found = list(keys_of(schema, schema))
    assert len(found) > 50
    described = {(path, key) for path, key, said in found if said.get("description")}
    assert {(path, key) for path, key, _ in found} == described


def test_every_field_of_methods_and_recipes_is_a_key(schema):
    """No key that nothing reads, no field that nobody can set."""
    methods = set(Method.__dataclass_fields__) - {"name"} | {"published"}
    assert set(schema["$defs"]["method"]["properties"]) == methods
    recipes = set(Recipe.__dataclass_fields__) | {"finetune"}
    assert set(schema["$defs"]["recipe"]["properties"]) == recipes


def test_a_method_that_says_nothing_is_the_same_everywhere(schema):
    """In a config, and in a model file of the time before a field."""
    config = {"methods": {"m": {}}}
    fill_defaults(config, schema)
    assert Method("m", **config["methods"]["m"]) == Method("m")


def test_every_shipped_key_is_in_the_schema(schema, read_config):
    """Without relying on additionalProperties: false, which could be forgotten at one depth."""
    known = {}
    for path, key, _ in keys_of(schema, schema):
        known.setdefault(path, set()).add(key)
    unknown = []

    def walk(values, path, name):
        allowed = known.get(path, set())
        for key, value in values.items():
            free = f"{path}*." in known
            if key not in allowed and not free:
                unknown.append(f"{name}: {path}{key}")
            if isinstance(value, dict):
                walk(value, f"{path}{'*' if free else key}.", name)

    for names in SHIPPED:
        walk(read_config(*names), "", names)
    assert unknown == []


def test_the_readme_explains_every_key(schema, root):
    text = (root / "config/README.md").read_text()
    words = set(re.findall(r"`([\w.]+)`", text))
    words |= {part for word in words for part in word.split(".")}
    keys = {key for _, key, _ in keys_of(schema, schema)}
    assert sorted(keys - words) == []


HOSTILE = ["$(rm -rf ~)", "; touch x", "{input}", "<results>", "a\nb", "a/b", "../a", "é", " a",
           "a\n", "-rf", "<img src=x onerror=alert(1)>", "%s", "a" * 5000, "\0", ""]  # fmt: skip


@pytest.mark.parametrize("section", ["datasets", "noises", "methods", "recipes"])
def test_names_are_plain(config, schema, section):
    """They become names of folders, wildcards of Snakemake and parts of web pages."""
    for name in HOSTILE:
        config[section][name] = next(iter(config[section].values()))
        said = message(config, schema)
        assert said.startswith(f"config key '{section}': ") and "write letters" in said
        assert said.isprintable() and len(said) < 400
        del config[section][name]


FREE = ["title", "recipe", "paper", "device", "grid.reference", "grid.methods", "predict.method",
        "methods.n2v.input", "methods.n2v.init", "datasets.nuclei.published",
        "no_such_key"]  # fmt: skip


@pytest.mark.parametrize("path", FREE)
def test_text_is_text_or_refused_in_a_sentence(config, schema, path):
    *parents, last = path.split(".")
    holder = config
    for parent in parents:
        holder = holder[parent]
    # Plain but for a shell, a wildcard, several lines, too long, unprintable, and empty.
    for text in ("$(rm -rf ~)", "{input}", "a\nb", "a" * 5000, "\0", ""):
        holder[last] = [text] if last == "methods" else text
        try:
            check(config, schema)
            check_feasible(Grid(config))
        except InputError as error:
            assert str(error).isprintable() and len(str(error)) < 500
        else:
            assert path == "title"


@pytest.mark.parametrize("path", ["u/{input}", "{dataset}", "a<results>b", "}{"])
def test_paths_have_nothing_that_snakemake_replaces(config, schema, path):
    config["datasets"]["nuclei"] = {"source": "folder", "images": path}
    said = message(config, schema)
    assert said.startswith("config key 'datasets.nuclei.images': ") and "Without {, }, <" in said
    config["datasets"]["nuclei"] = {"source": "simulate"}
    config["predict"] = {"images": path}
    assert "config key 'predict.images': " in message(config, schema)


def test_results_have_no_wildcards(config, schema):
    config["pathvars"] = {"results": "{dataset}"}
    assert "config key 'pathvars.results': " in message(config, schema)


@pytest.mark.parametrize("path", ["recipes.fast.depth", "recipes.fast.filters"])
def test_networks_have_bounds(config, schema, path):
    put(config, path, 10**9)
    assert "greater than the maximum" in message(config, schema)
