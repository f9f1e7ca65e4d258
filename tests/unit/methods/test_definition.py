"""What methods and recipes say about themselves."""

import json
from dataclasses import FrozenInstanceError

import pytest

from denoiseg_flow.methods.definition import Method, as_dict, method_from_dict, recipe_from_dict

N2V = Method(name="n2v", target="blind_spot", alpha=1)
BASELINE = Method(name="baseline", alpha=0)
JOINT = Method(name="denoiseg", target="blind_spot", alpha=0.3, init="n2v")


NLM = Method(name="nlm", classical="nlm")
N2S = Method(name="n2s", target="blind_spot", masking="grid_zero", alpha=1, struct_mask=[[1, 1, 1]])


@pytest.mark.parametrize(
    "method, denoises, segments",
    [(N2V, True, False), (BASELINE, False, True), (JOINT, True, True), (NLM, True, False)],
)
def test_alpha_decides_what_a_method_yields(method, denoises, segments):
    assert (method.denoises, method.segments) == (denoises, segments)


@pytest.mark.parametrize(
    "classical, parameter, calibrated",
    [
        ("nlm", None, True),
        ("nlm", [0.5, 1], True),
        ("nlm", [1], True),
        ("nlm", 1, False),
        ("nlm", 0.5, False),
        ("raw", None, False),
        (None, None, False),
    ],
)
def test_a_parameter_is_chosen_unless_it_is_given(classical, parameter, calibrated):
    method = Method("m", classical=classical, parameter=parameter)
    assert method.calibrated == calibrated


@pytest.mark.parametrize(
    "target, masking, hides",
    [
        ("blind_spot", "grid_zero", True),
        ("blind_spot", "grid_interpolate", True),
        ("blind_spot", "median", False),
        ("clean", "grid_zero", False),
        ("none", "grid_interpolate", False),
    ],
)
def test_only_blind_spots_hide_a_grid(target, masking, hides):
    assert Method("m", target=target, masking=masking).masks_grid == hides


@pytest.mark.parametrize(
    "method, share, expected",
    [
        (JOINT, 0.25, 2),
        (JOINT, 0.0, 0),
        (JOINT, None, 0),
        (BASELINE, 0.25, 8),
        (BASELINE, None, 0),
        (N2V, 0.25, 0),
        (N2V, None, 0),
    ],
)
def test_annotated_patches(method, share, expected, make_recipe):
    assert make_recipe(batch_size=8, annotated_share=share).annotated_patches(method) == expected


@pytest.mark.parametrize("share, first", [(0.0, 20), (0.3, 14), (0.99, 0)])
def test_first_frozen_step(share, first, make_recipe):
    recipe = make_recipe(epochs=5, steps_per_epoch=4, freeze_batch_norm=share)
    assert recipe.first_frozen_step == first


@pytest.mark.parametrize(
    "method, weight, share, first",
    [
        (JOINT, 1.0, 0.5, 6),
        (JOINT, 1.0, None, 6),
        (JOINT, 0.0, 0.5, 20),
        (JOINT, 1.0, 1.0, 20),
        (BASELINE, 1.0, 0.5, 20),
        (N2V, 1.0, 0.5, 20),
    ],
)
def test_first_pseudo_step(method, weight, share, first, make_recipe):
    recipe = make_recipe(epochs=5, steps_per_epoch=4, pseudo_labels=weight, annotated_share=share)
    assert recipe.first_pseudo_step(method) == first


def test_steps(make_recipe):
    assert make_recipe(epochs=7, steps_per_epoch=11).steps == 77


@pytest.mark.parametrize("method", [N2V, BASELINE, JOINT, NLM, N2S])
def test_method_round_trip_through_json(method):
    assert method_from_dict(json.loads(json.dumps(as_dict(method)))) == method


def test_recipe_round_trip_through_json(make_recipe):
    recipe = make_recipe(annotated_share=None)
    assert recipe_from_dict(json.loads(json.dumps(as_dict(recipe)))) == recipe


def test_fields_of_later_versions_are_ignored():
    assert method_from_dict(as_dict(JOINT) | {"z_planes": 3}) == JOINT


def test_fields_of_earlier_versions_get_defaults():
    assert method_from_dict({"name": "baseline"}) == Method(name="baseline") == BASELINE


def test_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        N2V.alpha = 0.5
