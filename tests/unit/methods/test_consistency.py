"""Contradictions in the methods of a config, each in a sentence that names its key."""

import pytest

from denoiseg_flow.errors import InputError
from denoiseg_flow.methods.definition import Method, down_samplings
from denoiseg_flow.methods.networks import NETWORKS, build_network
from denoiseg_flow.methods.networks.layout import volume_layout
from denoiseg_flow.models.model_file import save_model
from denoiseg_flow.study.feasibility import check_feasible
from denoiseg_flow.study.grid import Grid

N2S = {"target": "blind_spot", "masking": "grid_interpolate", "alpha": 1}
BLIND = {"target": "blind_spot", "alpha": 1}


def message(config):
    with pytest.raises(InputError) as caught:
        check_feasible(Grid(config))
    return str(caught.value)


def message_of(config, **fields):
    """What is said of one more method; recipes have patches of 32 x 32 pixels."""
    config["methods"]["new"] = fields
    config["grid"]["methods"] = ["new"]
    return message(config)


def test_what_does_not_fit_the_recipe_matters_only_where_it_is_used(config):
    config["methods"] |= {"wide": N2S | {"grid": 33}, "dae": BLIND | {"network": "autoencoder"}}
    config["recipes"]["fast"] |= {"depth": 1, "patch_size": 30}
    check_feasible(Grid(config))
    for name in ("wide", "dae"):
        config["grid"]["methods"] = [name]
        assert f"methods.{name}" in message(config)


def test_the_recipe_of_pretrained_methods(config):
    """It need not exist unless it is used."""
    assert message_of(config, init="simulated_objects") == (
        "unknown recipe 'finetune'; available: fast, other (config key recipes.fast.finetune)"
    )


# What a method builds on


@pytest.mark.parametrize("field", ["input", "init"])
def test_unknown_upstream(config, field):
    config["methods"]["sequential"][field] = "care"
    assert message(config).startswith("unknown method 'care'; available: n2v, ")
    assert ("simulated_objects" in message(config)) == (field == "init")
    assert message(config).endswith(f"(config key methods.sequential.{field})")


def test_unknown_recipe(config):
    assert message_of(config, **BLIND, recipe="fsat") == (
        "unknown recipe 'fsat'; available: fast, other (config key methods.new.recipe)"
    )


@pytest.mark.parametrize(
    "links",
    [
        {"denoiseg": {"init": "denoiseg"}},
        {"denoiseg": {"input": "denoiseg"}},
        {"n2v": {"input": "denoiseg"}, "denoiseg": {"init": "n2v"}},
        {
            "n2v": {"init": "denoiseg"},
            "denoiseg": {"init": "baseline"},
            "baseline": {"input": "n2v"},
        },
    ],
)
def test_circles(config, links):
    for name, fields in links.items():
        config["methods"][name] |= fields
    text = message(config)
    assert "builds on itself, through " in text
    assert text.endswith("change 'input' or 'init' of one of them")
    named = text.split("through ")[1].split(";")[0].split(" and ")
    assert set(named) == set(links)


def test_a_circle_that_others_lead_into_is_found(config):
    """Whatever builds on a circle must not send the check round for ever."""
    config["methods"] = {
        "first": {"init": "n2v"},
        "n2v": {"target": "blind_spot", "alpha": 1, "init": "other"},
        "other": {"target": "blind_spot", "alpha": 1, "init": "n2v"},
    }
    config["grid"] |= {"methods": ["first"], "reference": "first"}
    assert "'methods.n2v' builds on itself, through n2v and other" in message(config)


def test_input_that_does_not_denoise(config):
    config["methods"]["sequential"]["input"] = "baseline"
    assert message(config) == (
        "config key 'methods.sequential.input' names 'baseline', which does not denoise (alpha 0); "
        "name a method with alpha above 0"
    )


def test_classical_denoisers_may_be_the_input(config):
    config["methods"]["median"] = {"classical": "median"}
    config["methods"]["sequential"]["input"] = "median"
    assert Grid(config).methods["sequential"].input == "median"


@pytest.mark.parametrize(
    "source", [{"classical": "median"}, {"segmenter": "otsu"}, N2S | {"each_image": True}]
)
def test_a_warm_start_needs_a_single_network(config, source):
    config["methods"]["many"] = source
    assert message_of(config, **BLIND, init="many") == (
        "config key 'methods.new.init' names 'many', which has no single network to start from; "
        "name another method"
    )


@pytest.mark.parametrize(
    "fields, recipe, wanted",
    [
        ({"network": "unet_blurpool"}, {}, ("unet_blurpool", 2, 4, False, "distance")),
        ({"mask_channel": True}, {}, ("unet", 2, 4, True, "distance")),
        ({"recipe": "other"}, {"depth": 3}, ("unet", 3, 4, False, "distance")),
        ({"recipe": "other"}, {"filters": 8}, ("unet", 2, 8, False, "distance")),
        ({"recipe": "other"}, {"instances": "watershed"}, ("unet", 2, 4, False, "watershed")),
    ],
)
def test_a_warm_start_needs_the_same_network(config, fields, recipe, wanted):
    config["recipes"]["other"] |= recipe
    assert message_of(config, **BLIND, init="n2v", **fields) == (
        "config key 'methods.new.init' names 'n2v', whose network (name, depth, filters, mask "
        f"channel, instances) is ('unet', 2, 4, False, 'distance'), not {wanted}; make them the "
        "same"
    )


def test_a_warm_start_may_be_trained_by_another_recipe(config):
    config["recipes"]["other"]["epochs"] = 9
    config["methods"]["denoiseg_warm"]["recipe"] = "other"
    assert Grid(config).methods["denoiseg_warm"].init == "n2v"


# Targets


def test_alpha_without_target(config):
    config["methods"]["denoiseg"] |= {"target": "none", "alpha": 0.3}
    assert message(config) == (
        "config key 'methods.denoiseg' has alpha 0.3 but no target for denoising; set 'target: "
        "blind_spot', or 'alpha: 0' to segment only"
    )


@pytest.mark.parametrize("target", ["blind_spot", "second_noisy", "clean"])
def test_target_without_alpha(config, target):
    config["methods"]["baseline"]["target"] = target
    assert message(config) == (
        f"config key 'methods.baseline' has target '{target}' but alpha 0, so it would not learn "
        "to denoise; set alpha above 0, or 'target: none'"
    )


@pytest.mark.parametrize("field, value", [("parameter", 2), ("noise_sigma", "known")])
def test_networks_have_no_fields_of_classical_denoisers(config, field, value):
    assert message_of(config, **BLIND, **{field: value}) == (
        f"config key 'methods.new.{field}' is for classical denoisers only; leave it out, or name "
        "a denoiser under 'classical'"
    )


# Hidden pixels


def test_mask_channel_without_masked_pixels(config):
    assert message_of(config, target="clean", alpha=1, mask_channel=True) == (
        "config key 'methods.new.mask_channel' is true, but no pixels are masked; write 'target: "
        "blind_spot', or leave it out"
    )


def test_even_neighbourhood(config):
    assert message_of(config, **BLIND, neighbourhood=4) == (
        "config key 'methods.new.neighbourhood' is 4, but must be odd to have the masked pixel in "
        "its centre; write 11 or 5"
    )


def test_grid_larger_than_a_patch(config):
    config["methods"]["fits"] = N2S | {"grid": 32}
    check_feasible(Grid(config))
    assert message_of(config, **N2S, grid=33) == (
        "config key 'methods.new.grid' is 33, larger than a training patch, and so the smallest "
        "image, of 32 pixels a side; lower it, for example to 4"
    )


@pytest.mark.parametrize(
    "fields",
    [
        BLIND,
        {"target": "clean", "alpha": 1, "masking": "grid_zero"},
        N2S | {"alpha": 0.5},
        N2S | {"init": "n2v"},
    ],
)
def test_each_image_needs_a_grid_and_nothing_else(config, fields):
    assert message_of(config, **fields, each_image=True) == (
        "config key 'methods.new.each_image' is true, which is for denoising only and needs a grid "
        "that leaves pixels for validation; write 'target: blind_spot', 'masking: "
        "grid_interpolate' and 'alpha: 1', without 'init'"
    )


@pytest.mark.parametrize("fields", [N2S, {"target": "clean", "alpha": 1}])
def test_struct_mask_of_a_method_that_hides_no_single_pixels(config, fields):
    assert message_of(config, **fields, struct_mask=[[1, 1, 1]]) == (
        "config key 'methods.new.struct_mask' needs 'target: blind_spot' and a masking other "
        "than a grid; leave it out, or change these"
    )


@pytest.mark.parametrize(
    "mask", [[[1, 1]], [[1], [1]], [[1, 1, 1], [1, 1, 1]], [[1, 1, 1], [1], [1, 1, 1]]]
)
def test_struct_mask_of_even_or_ragged_sides(config, mask):
    assert message_of(config, **BLIND, struct_mask=mask) == (
        "config key 'methods.new.struct_mask' must have an odd number of rows of the same odd "
        "length, such as [[1, 1, 1]]"
    )


def test_struct_mask_without_its_centre(config):
    assert message_of(config, **BLIND, struct_mask=[[1, 0, 1]]) == (
        "config key 'methods.new.struct_mask' has a 0 in its centre; write a 1 there"
    )


@pytest.mark.parametrize("rows, columns", [(1, 33), (33, 1)])
def test_struct_mask_larger_than_a_patch(config, rows, columns):
    config["methods"]["fits"] = BLIND | {"struct_mask": [[1] * 31]}
    check_feasible(Grid(config))
    assert message_of(config, **BLIND, struct_mask=[[1] * columns] * rows) == (
        f"config key 'methods.new.struct_mask' has {rows}x{columns} pixels, more than a training "
        "patch (32x32); shorten it, or raise 'recipes.fast.patch_size'"
    )


# Networks


def test_patches_must_fit_the_depth(config):
    config["recipes"]["fast"] |= {"depth": 3, "patch_size": 36}
    assert message(config) == (
        "config key 'recipes.fast.patch_size' is 36, but network 'unet' of methods.n2v (depth 3) "
        "needs a multiple of 8"
    )


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("network", NETWORKS)
def test_patches_must_fit_the_stride_of_the_network(config, network, depth):
    """The check knows the strides without loading torch."""
    (stride,) = set(build_network(network, depth, 2).stride)
    config["methods"] = {"denoiseg": BLIND | {"network": network}}
    config["grid"]["methods"] = ["denoiseg"]
    for size in range(32, 49):
        config["recipes"]["fast"] |= {"depth": depth, "patch_size": size}
        if size % stride == 0:
            check_feasible(Grid(config))
        else:
            assert f"'{network}' of methods.denoiseg" in message(config)
            assert message(config).endswith(f"needs a multiple of {stride}")


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("network", NETWORKS)
def test_strides_of_volumes_are_those_of_planes(network, depth):
    """In y and x; how many planes fit is seen to where the layout is chosen."""
    n_halvings = down_samplings(network, depth)
    for step in (1.0, 3.0):
        layout = volume_layout(n_halvings, 16, 64, step)
        stride = build_network(network, depth, 2, layout=layout).stride
        assert stride == (layout.z_stride, 2**n_halvings, 2**n_halvings)
        assert layout.patch_depth % stride[0] == 0


# Classical denoisers


# Fields of methods with a network.
OF_NETWORKS = [
    ("target", "blind_spot"),
    ("alpha", 0.5),
    ("network", "dncnn"),
    ("masking", "grid_zero"),
    ("mask_channel", True),
    ("struct_mask", [[1, 1, 1]]),
    ("init", "n2v"),
    ("rehearse", "simulated_objects"),
    ("each_image", True),
]


@pytest.mark.parametrize("field, value", [*OF_NETWORKS, ("recipe", "other")])
def test_classical_denoisers_are_not_trained(config, field, value):
    assert message_of(config, classical="median", **{field: value}) == (
        f"config key 'methods.new' is classical (median) and not trained, so '{field}' has no "
        f"effect; leave '{field}' out"
    )


@pytest.mark.parametrize("field, value", [*OF_NETWORKS, ("parameter", 2), ("noise_sigma", "known")])
@pytest.mark.parametrize("segmenter", ["otsu", "pixel_classifier"])
def test_segmenters_have_no_fields_of_other_methods(config, segmenter, field, value):
    assert message_of(config, segmenter=segmenter, **{field: value}) == (
        f"config key 'methods.new' segments without a network (segmenter '{segmenter}'), so "
        f"'{field}' has no effect; leave '{field}' out"
    )


@pytest.mark.parametrize("field, value", [("recipe", "other"), ("planes", True)])
def test_thresholds_have_no_training(config, field, value):
    assert message_of(config, segmenter="local_threshold", **{field: value}) == (
        "config key 'methods.new' segments by a threshold (local_threshold) of the whole image, "
        f"without training, so '{field}' has no effect; leave '{field}' out"
    )
    config["methods"]["new"]["segmenter"] = "pixel_classifier"
    check_feasible(Grid(config))


def test_a_segmenter_is_no_denoiser(config):
    assert message_of(config, segmenter="otsu", classical="median") == (
        "config key 'methods.new' has both 'segmenter' and 'classical'; leave one of them out, and "
        "name a method that denoises under 'input' instead"
    )
    config["methods"]["other"] = {"segmenter": "otsu"}
    assert message_of(config, alpha=0, input="other") == (
        "config key 'methods.new.input' names 'other', which does not denoise (alpha 0); name a "
        "method with alpha above 0"
    )


@pytest.mark.parametrize("value", [2, [1, 2]])
def test_raw_has_no_parameter(config, value):
    assert message_of(config, classical="raw", parameter=value) == (
        "config key 'methods.new.parameter' has no effect on 'raw'; leave it out"
    )


def test_noise_of_denoised_images_is_not_known(config):
    fields = {"classical": "nlm", "input": "n2v"}
    assert message_of(config, **fields, noise_sigma="known") == (
        "config key 'methods.new.noise_sigma' is 'known', but the remaining noise in the "
        "denoised images of 'n2v' is not known; write 'noise_sigma: estimated'"
    )
    config["methods"]["new"] = fields | {"noise_sigma": "estimated"}
    assert Grid(config).methods["new"].input == "n2v"


# Pretrained networks


def test_a_pretrained_network_needs_its_own_size(config):
    message_ = message_of(config, init="simulated_objects", recipe="fast")
    assert message_ == (
        "config key 'methods.new.init' names 'simulated_objects', a network with depth 4 and 16 "
        "filters, but 'recipes.fast' has depth 2 and 4 filters; take the recipe 'finetune'"
    )


@pytest.mark.parametrize("fields", [{"network": "unet_blurpool"}, BLIND | {"mask_channel": True}])
def test_a_pretrained_network_needs_its_own_kind(config, fields):
    text = message_of(config, init="simulated_objects", recipe="fast", **fields)
    assert text == (
        "config key 'methods.new.init' names 'simulated_objects', a network 'unet' without mask "
        "channel; write 'network: unet' and leave 'mask_channel' out"
    )


def test_a_pretrained_network_needs_the_same_outputs(config):
    config["recipes"]["fast"] |= {"depth": 4, "filters": 16, "instances": "watershed"}
    assert message_of(config, init="simulated_objects", recipe="fast") == (
        "config key 'methods.new.init' names 'simulated_objects', which was trained with "
        "'instances: distance', but 'recipes.fast' has 'instances: watershed'; take the recipe "
        "'finetune'"
    )


def test_no_method_has_the_name_of_a_pretrained_network(config):
    config["methods"]["simulated_objects"] = BLIND
    assert message(config) == (
        "config key 'methods.simulated_objects' has the name of a pretrained network of this "
        "package; rename it"
    )


# Models from elsewhere


@pytest.fixture
def model_of(tmp_path, make_model):
    """Write a model of this method and size; return its path."""

    def write(method=Method("baseline"), **how):  # noqa: B008
        save_model(make_model(method, **how), tmp_path / "a.pt")
        return str(tmp_path / "a.pt")

    return write


def test_the_file_of_a_model_must_exist(config):
    assert message_of(config, init="models/nuclei.pt") == (
        "config key 'methods.new.init' names 'models/nuclei.pt', which does not exist; correct the "
        "path"
    )
    config["grid"]["methods"] = ["baseline"]
    check_feasible(Grid(config))


def test_the_network_of_a_model_must_fit_the_recipe(config, model_of):
    assert "a network with depth 1 and 4 filters, but the recipe of new has depth 2" in message_of(
        config, init=model_of(filters=4)
    )
    config["recipes"]["other"]["depth"] = 1
    config["methods"]["new"]["recipe"] = "other"
    check_feasible(Grid(config))
    config["methods"]["new"]["network"] = "dncnn"
    assert "a network 'unet' without mask channel; write 'network: unet'" in message(config)


def test_a_network_without_encoder_freezes_none(config):
    config["recipes"]["other"]["freeze"] = "encoder"
    config["methods"]["n2s"] = N2S | {"network": "dncnn"}
    assert message_of(config, init="n2s", recipe="other", **N2S, network="dncnn") == (
        "config key 'recipes.other.freeze' is 'encoder', but network 'dncnn' of methods.new has "
        "none; leave it out, or name another recipe under 'methods.new.recipe'"
    )
    config["methods"]["new"]["init"] = None
    check_feasible(Grid(config))


# Simulated images in a training


def test_what_may_rehearse(config, model_of):
    words = {"init": model_of(filters=4), "recipe": "other", "rehearse": "simulated_objects"}
    config["recipes"]["other"]["depth"] = 1
    start = "config key 'methods.new.rehearse' is 'simulated_objects', but"
    assert message_of(config, **words) == (
        f"{start} 'recipes.other.rehearsal' is 0; raise it, for example to 0.5, or leave "
        "'rehearse' out"
    )
    config["recipes"]["other"]["rehearsal"] = 0.5
    check_feasible(Grid(config))
    assert message_of(config, **words | BLIND | {"alpha": 1}) == (
        f"{start} methods.new only denoises (alpha 1); leave 'rehearse' out"
    )
    assert message_of(config, **words | {"init": "simulated_objects"}) == (
        f"{start} methods that start from a pretrained network ('init: simulated_objects') "
        "rehearse what that was trained on; leave 'rehearse' out"
    )
