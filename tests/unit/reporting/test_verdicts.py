"""What the report says of methods: no more than the numbers carry."""

import numpy as np
import pandas as pd
import pytest

from denoiseg_flow.reporting.tables.verdicts import (
    Comparison,
    annotation_gains,
    best_method,
    best_methods,
    recommend,
)

MINUS = "\N{MINUS SIGN}"


def scores(differences, seeds=4, images=10, n_annotated=2, planes=1, **columns):
    """AP rows: method ``best`` at 0.8, and others below it by a draw of (mean, spread)."""
    random = np.random.default_rng(0)
    rows = []
    for method, (mean, spread) in {"best": (0, 0), **differences}.items():
        draws = random.normal(0, spread, (seeds, images)) if spread else np.zeros((seeds, images))
        values = 0.8 - mean - (draws - draws.mean())
        rows += [
            ("d", "n", method, n_annotated, seed, f"{image}.tif", f"{image}_{plane}", "AP",
             values[seed, image])
            for seed in range(seeds)
            for image in range(images)
            for plane in range(planes)
        ]  # fmt: skip
    names = ["dataset", "noise", "method", "n_annotated", "seed", "source", "image", "metric"]
    return pd.DataFrame(rows, columns=[*names, "value"]).assign(**columns)


def sentences(metrics, untrained=()):
    return {each.purpose: each.sentence for each in recommend(metrics, untrained)}


def test_networks_without_annotated_images_are_judged_by_those_with_the_most():
    """And methods that use none by their only scores."""
    metrics = pd.concat(
        [
            scores({"pretrained": (0.1, 0.01)}),
            scores({"pretrained": (-0.1, 0.01), "otsu": (0.3, 0.01)}, n_annotated=0),
        ]
    )
    without_best = metrics[(metrics["method"] != "best") | (metrics["n_annotated"] > 0)]
    (label, *_) = recommend(without_best)
    assert label.sentence.startswith("Use best: AP 0.800")
    assert "better than pretrained, the second best, by 0.100" in label.sentence


# --- a setting ----------------------------------------------------------------------------------


def test_verdicts_claim_only_what_the_paired_interval_allows():
    metrics = scores({"worse": (0.2, 0.01), "similar": (0.005, 0.1), "same": (0.001, 0.001)})
    (verdict,) = best_methods(metrics)
    assert verdict.method == "best" and verdict.mean == pytest.approx(0.8)
    assert verdict.names("better") == ["worse"]
    assert (verdict.names("open"), verdict.names("equal")) == (["similar"], ["same"])
    assert verdict.sentence.startswith(
        "With 2 annotated images, best has the highest mean AP, 0.800 ± 0.000 (4 seeds, 10 test "
        "images); significantly better than worse; equivalent to same (within 0.020); not "
        "significantly different from similar."
    )


@pytest.mark.parametrize(
    "low, high, p, outcome",
    [
        (0.01, 0.3, 0.049, "better"),
        (0.01, 0.3, 0.051, "open"),
        (-0.3, 0.3, 0.9, "open"),
        (-0.019, 0.019, 0.9, "equal"),
        (-0.019, 0.021, 0.9, "open"),
        (0.001, 0.019, 0.001, "equal"),  # it is better, but by nothing that matters
        (float("nan"), float("nan"), float("nan"), "untested"),
    ],
)
def test_outcomes(low, high, p, outcome):
    assert Comparison("m", "AP", 0.001, low, high, p).outcome == outcome


def test_there_is_no_margin_for_losses_whose_unit_nobody_knows():
    assert Comparison("m", "loss_self_supervised", 0.0, -1e-9, 1e-9, 0.9).outcome == "open"


def test_all_pairs_count():
    """The p-values are those of ten comparisons among five methods, not of four with the best."""
    spread = {name: (0.03, 0.04) for name in "abcd"}
    (few,) = best_methods(scores({"a": (0.03, 0.04)}))
    (many,) = best_methods(scores(spread))
    same = {each.method: each for each in many.comparisons}["a"]
    assert (same.difference, same.low) == pytest.approx(
        (few.comparisons[0].difference, few.comparisons[0].low)
    )
    assert same.p > 3 * few.comparisons[0].p


def test_a_single_method_is_no_comparison():
    (alone,) = best_methods(scores({}, n_annotated=1))
    assert "no other method" in alone.sentence and "With 1 annotated image," in alone.sentence
    assert sentences(scores({}))["labels"] == "Only best was scored: AP 0.800 ± 0.000."


def test_without_segmentation_methods_are_ranked_by_psnr():
    metrics = scores({"other": (0.2, 0.01)}, n_annotated=0, metric="PSNR")
    (verdict,) = best_methods(metrics)
    assert (verdict.metric, verdict.method, verdict.value) == ("PSNR", "best", "0.80 ± 0.00")
    assert verdict.sentence.startswith("best has the highest mean PSNR, 0.80")
    assert best_methods(metrics.assign(metric="SSIM")) == []


# --- recommendations ----------------------------------------------------------------------------


def test_a_clear_recommendation_has_numbers_and_interval():
    (each,) = recommend(scores({"worse": (0.2, 0.01), "worst": (0.4, 0.01)}))
    assert (each.dataset, each.noise, each.purpose, each.method) == ("d", "n", "labels", "best")
    assert each.title == "Labels"
    assert each.sentence.startswith(
        "Use best: AP 0.800 ± 0.000, significantly better than worse, the second best, by 0.200 "
        "(95% CI 0.1"
    )
    assert "Expect it to be" not in each.sentence  # the best was not lucky


def test_what_is_not_known_is_not_recommended():
    sentence = sentences(scores({"similar": (0.005, 0.1), "worse": (0.3, 0.01)}))["labels"]
    assert sentence.startswith(
        "No method is significantly better than all others. best ranks first with AP 0.8"
    )
    assert f"ahead of similar by 0.005 (95% CI {MINUS}0.0" in sentence
    assert "it is significantly better than worse. More seeds (grid.seeds) or more" in sentence
    images = scores({"similar": (0.005, 0.1)})
    easy = images["source"].map({f"{k}.tif": k % 3 - 1 for k in range(10)})
    images["value"] += np.where(images["method"] == "best", easy, 0)
    assert "Most of the uncertainty is due to the test images:" in sentences(images)["labels"]
    trainings = scores({"similar": (0.005, 0.1)})
    shift = trainings["seed"].map({0: -0.1, 1: 0.1, 2: 0.05, 3: -0.05})
    trainings["value"] += np.where(trainings["method"] == "best", shift, 0)
    assert "Most of the uncertainty is due to the seeds: add" in sentences(trainings)["labels"]


def test_equal_is_more_than_no_difference_shown():
    sentence = sentences(scores({"same": (0.001, 0.002), "worse": (0.3, 0.01)}))["labels"]
    assert sentence.startswith("best and same are equivalent (within 0.020): best has AP 0.800 ± 0")
    assert sentence.endswith("it is significantly better than worse. Use whichever you prefer.")


def test_one_seed_names_no_winner_but_what_it_takes():
    sentence = sentences(scores({"other": (0.2, 0.01)}, seeds=1))["labels"]
    assert sentence == (
        "No recommendation: each method was trained with a single seed, so the variation between "
        "trainings is unknown (set grid.seeds to [1, 2, 3]). best ranks first with AP 0.800, ahead "
        "of other by 0.200."
    )
    untrained = sentences(scores({"other": (0.2, 0.01)}, seeds=1), ["best", "other"])["labels"]
    assert untrained.startswith("Use best: AP 0.800, significantly better than other")


@pytest.mark.parametrize("images, planes, few", [
    (1, 1, "there is only 1 test image (annotate at least 3 test images)"),
    (2, 20, "there are only 40 test images from 2 files (annotate images from at least 3 files)"),
])  # fmt: skip
def test_too_few_images_name_no_winner(images, planes, few):
    metrics = scores({"other": (0.2, 0.01)}, images=images, planes=planes)
    sentence = sentences(metrics)["labels"]
    assert sentence.startswith(f"No recommendation: {few}. best ranks first")
    both = sentences(scores({"other": (0.2, 0.01)}, seeds=1, images=images, planes=planes))
    assert "a single seed" in both["labels"] and few in both["labels"]


@pytest.mark.parametrize("images, planes, few", [
    (2, 1, "there are only 2 test images from 2 groups (annotate images from at least 3 groups)"),
    (1, 20, "there are only 20 test images from 1 group (annotate images from at least 3 groups)"),
])  # fmt: skip
def test_groups_are_counted_and_asked_for(images, planes, few):
    """Even if there is one image in each."""
    metrics = scores({"other": (0.2, 0.01)}, images=images, planes=planes)
    (found,) = recommend(metrics, grouped=["d"])
    assert found.sentence.startswith(f"No recommendation: {few}. best ranks first")
    (verdict,) = best_methods(metrics, grouped=["e", "d"])
    assert f"from {images} group" in verdict.extent
    (verdict,) = best_methods(metrics, grouped=["e"])
    assert "group" not in verdict.sentence + verdict.recommendation


@pytest.mark.parametrize(
    ("spread_of", "advice"),
    [
        (0, "Most of the uncertainty is due to the seeds: add seeds to grid.seeds."),
        (1, "Most of the uncertainty is due to the test groups: annotate more test images of other"
         " groups."),
    ],
)  # fmt: skip
def test_what_would_narrow_an_interval_over_groups(spread_of, advice):
    effect = np.random.default_rng(1).normal(0, 0.3, (4, 10))
    effect = np.broadcast_to(effect.mean(axis=1 - spread_of, keepdims=True), (4, 10))
    metrics = scores({"other": (0.001, 0.01)}).sort_values(["method", "seed", "source"])
    values = metrics["value"].to_numpy().copy()
    values[40:] += (effect - effect.mean()).ravel()
    (found,) = recommend(metrics.assign(value=values), grouped=["d"])
    assert found.sentence.endswith(advice)


def test_the_most_annotated_images_decide_and_methods_without_labels_take_part():
    few = scores({"other": (0.2, 0.01)}, n_annotated=2)
    many = scores({"other": (-0.1, 0.01)}, n_annotated=8)
    free = scores({"n2v": (-0.15, 0.5)}, n_annotated=0).query("method == 'n2v'")
    metrics = pd.concat([few, many, free.assign(metric="PSNR"), many.assign(metric="PSNR")])
    found = sentences(metrics)
    assert found["labels"].startswith("Use other: AP 0.900")
    assert found["denoised"].startswith("No method is significantly better than all others. n2v ")
    assert best_method(metrics, "labels") == "other" and best_method(metrics, "denoised") == "n2v"
    assert best_method(metrics[metrics["metric"] == "PSNR"], "labels") is None


def test_without_clean_images_the_least_loss_is_best():
    losses = scores({"worse": (-0.2, 0.01)}, n_annotated=0, metric="loss_self_supervised")
    sentence = sentences(losses)["denoised"]
    assert sentence.startswith("Use best: self-supervised loss 0.800 ± 0.000, significantly better")
    assert "by 0.200 (95% CI 0.1" in sentence
    (verdict,) = best_methods(losses)
    assert verdict.names("better") == ["worse"]
    assert "has the lowest mean self-supervised loss" in verdict.sentence
    assert best_method(losses, "denoised") == "best"


def test_the_best_of_several_was_lucky():
    """A winner by a hair, among many trainings: what is expected of it elsewhere is less."""
    random = np.random.default_rng(0)
    metrics = scores({name: (0.0, 0.3) for name in "abcdef"}, seeds=5, images=30)
    metrics["value"] += random.normal(0, 0.05, len(metrics))
    (verdict,) = best_methods(metrics)
    assert 0.002 < verdict.selection_bias < 0.05


def test_equal_methods_seldom_get_a_winner():
    """Of 30 studies of four equal methods, 1.5 may name one; 6 would be four standard errors."""
    random = np.random.default_rng(0)
    table = scores({name: (0, 0) for name in "abc"}, seeds=3, images=8)
    methods, seeds, images = (table[name].astype("category").cat.codes for name in (
        "method", "seed", "image"))  # fmt: skip
    false = 0
    for _ in range(30):
        value = random.normal(0, 0.02, (4, 3, 1)) + random.normal(0, 0.05, (4, 1, 8))
        value = value + random.normal(0, 0.1, (4, 3, 8))
        (verdict,) = best_methods(table.assign(value=value[methods, seeds, images]))
        false += bool(verdict.names("better"))
    assert false < 6


# --- more annotated images ----------------------------------------------------------------------


def gain_of(mean, spread, fewer=(2, 4), **sizes):
    """Gains where one method has 0.8 with 8 annotated images, and that much less with fewer."""
    tables = [
        scores({}, n_annotated=8, **sizes),
        *(
            scores({"best_below": (mean, spread)}, n_annotated=count, **sizes).query(
                "method == 'best_below'"
            )
            for count in fewer
        ),
    ]
    metrics = pd.concat(tables).assign(method="m")
    other = scores({}, n_annotated=8, method="other", value=0.5)
    return annotation_gains(pd.concat([metrics, other]))


def test_whether_more_annotated_images_helped():
    (gain,) = gain_of(0.2, 0.01)
    assert (gain.dataset, gain.noise, gain.method, gain.fewer, gain.more) == ("d", "n", "m", 4, 8)
    assert gain.difference == pytest.approx(0.2)
    assert 0.18 < gain.low < gain.difference < gain.high < 0.22
    assert gain.sentence.startswith("From 4 to 8 annotated images, AP of m changed by +0.200 (95% ")
    assert gain.sentence.endswith("even more annotated images are likely to help.")


def test_no_gain_is_no_promise():
    (unclear,), (harmful,) = gain_of(0.005, 0.2), gain_of(-0.1, 0.01)
    assert unclear.low < 0 < unclear.high
    assert unclear.sentence.endswith("it is unclear whether more of them would help.")
    assert harmful.sentence.endswith("significantly reduced AP; check their masks.")
    (untested,) = gain_of(0.2, 0, seeds=1)
    assert "too few seeds or test images to test" in untested.sentence


def test_gain_from_no_annotated_image():
    """Of a pretrained network; a method that never uses annotated images tells nothing."""
    (gain,) = gain_of(0.2, 0.01, fewer=(0,))
    assert gain.sentence.startswith("From 0 to 8 annotated images, AP of m changed by +0.200 (95% ")
    untrained = scores({}, n_annotated=0, method="untrained", value=0.9)
    learned = scores({}, n_annotated=8, method="learned", value=0.5)
    assert annotation_gains(pd.concat([untrained, learned])) == []


def test_gains_need_two_numbers_of_annotated_images():
    assert annotation_gains(scores({"other": (0.1, 0.1)})) == []
    assert annotation_gains(scores({}, metric="PSNR")) == []


def test_methods_of_equal_score_are_level():
    sentence = sentences(scores({"twin": (0, 0)}))["labels"]
    assert "level with twin" in sentence and "ahead of" not in sentence
