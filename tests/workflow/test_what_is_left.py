"""`snakemake plan` and `snakemake tables_partial`: what is left, and what is there."""

import re
import shutil

import pytest
from snakemake_call import call_here, dry_run


def planned(call):
    """Jobs by rule, and their total, in the table of the plan."""
    assert call.status == 0, call.screen
    table = re.search(r"^Plan: .*?\n\n.*?\n-+\n(.*?)^-+\n(total .*?)$", call.screen, re.S | re.M)
    jobs = {row.split()[0]: int(row.split()[1].replace(",", "")) for row in table[1].splitlines()}
    return {rule: count for rule, count in jobs.items() if count}, int(
        table[2].split()[1].replace(",", "")
    )


@pytest.mark.parametrize("config", [None, "n2v", "volumes", "paper/mouse"])
def test_plan_counts_the_jobs_of_the_dry_run(tmp_path, config):
    seed = ("--config", "grid={seeds: [1]}")
    jobs, total = planned(call_here(tmp_path, "--cores", "1", "plan", *seed, config=config))
    expected = dry_run(tmp_path, *seed, config=config).jobs
    assert jobs == expected
    assert total == sum(expected.values())
    assert not (tmp_path / "results/data").exists()


@pytest.fixture
def study(tmp_path, finished):
    """A copy of a finished study."""
    return shutil.copytree(finished, tmp_path / "study")


def metrics_of(study, method):
    (path,) = (study / "results/runs").glob(f"*/*/{method}/*/*/metrics.tsv")
    return path


def test_finished_runs_are_told(study):
    call = call_here(study, "--cores", "1", "plan")
    assert planned(call) == ({}, 0)
    assert re.search(r"^train +0 +5 ", call.screen, re.M)


def test_tables_of_what_is_finished(study):
    results = study / "results"
    shutil.rmtree(results / "tables")
    metrics_of(study, "baseline").unlink()
    # Another model than the one whose predictions were scored.
    (metrics_of(study, "denoiseg").parent / "model.pt").write_bytes(b"trained again")
    call = call_here(study, "--cores", "1", "tables_partial")
    assert call.status == 0, call.screen
    assert call.jobs == {"tables_partial": 1}
    assert not (results / "tables").exists()
    for ending in ("csv", "html", "md", "tex"):
        text = (results / f"tables_partial/segmentation.{ending}").read_text()
        assert "3 of 5 runs" in text
        assert "baseline" not in text and "denoiseg," not in text
    assert "artial" in (results / "tables_partial/segmentation.tex").read_text()


def test_results_of_another_config_are_not_mixed_in(study):
    changed = ("--config", "recipes={tiny: {steps_per_epoch: 21}}")
    shutil.rmtree(study / "results/tables")
    call = call_here(study, "--cores", "1", "tables_partial", *changed)
    assert call.status == 1
    assert "none of the 5 runs of this study is finished" in call.screen
    assert not (study / "results/tables_partial").exists()
