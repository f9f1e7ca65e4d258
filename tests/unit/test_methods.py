"""What methods and recipes say about themselves."""

import json
from dataclasses import FrozenInstanceError

import pytest

from denoiseg_flow.methods import Method, Recipe, as_dict, method_from_dict

N2V = Method(name="n2v", target="blind_spot", alpha=1)
BASELINE = Method(name="baseline", alpha=0)
JOINT = Method(name="denoiseg", target="blind_spot", alpha=0.3, init="n2v")


@pytest.mark.parametrize(
    "method, denoises, segments", [(N2V, True, False), (BASELINE, False, True), (JOINT, True, True)]
)
def test_alpha_decides_what_a_method_yields(method, denoises, segments):
    assert (method.denoises, method.segments) == (denoises, segments)


@pytest.mark.parametrize(
    "method, share, expected",
    [
        (JOINT, 0.25, 0.25),
        (JOINT, 0.0, 0.0),
        (JOINT, None, None),
        (BASELINE, 0.25, 1.0),
        (BASELINE, None, None),
        (N2V, 0.25, None),
        (N2V, None, None),
    ],
)
def test_batch_share(method, share, expected, make_recipe):
    assert make_recipe(labelled_share=share).batch_share(method) == expected


def test_steps(make_recipe):
    assert make_recipe(epochs=7, steps_per_epoch=11).steps == 77


@pytest.mark.parametrize("method", [N2V, BASELINE, JOINT])
def test_method_round_trip_through_json(method):
    assert method_from_dict(json.loads(json.dumps(as_dict(method)))) == method


def test_recipe_round_trip_through_json(make_recipe):
    recipe = make_recipe(labelled_share=None)
    assert Recipe(**json.loads(json.dumps(as_dict(recipe)))) == recipe


def test_fields_of_later_versions_are_ignored():
    assert method_from_dict(as_dict(JOINT) | {"z_planes": 3}) == JOINT


def test_fields_of_earlier_versions_get_defaults():
    assert method_from_dict({"name": "baseline"}) == Method(name="baseline") == BASELINE


def test_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        N2V.alpha = 0.5
