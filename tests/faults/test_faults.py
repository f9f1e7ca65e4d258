"""A fault of each family, where it costs little; campaign.py inflicts as many as time allows."""

import pytest
from faults import NotHere, survive

# Numbers by which a rule is drawn that little depends on.
FAULTS = {
    "kill_each_rule": 0,
    "kill_snakemake": 21,  # in predict_chunk
    "second_snakemake": 4,  # in score
    "full_disk": 10,  # in predict_run
    "damaged_image": 7,  # a denoised one
    "damaged_table": 10,  # metrics.tsv
    "damaged_checkpoint": 0,
    "clock_jump": 8,  # in plot_panel
    "vanished_network": 3,  # once
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_next_run_completes(fault, undisturbed, tmp_path):
    try:
        print(survive(fault, FAULTS[fault], undisturbed, tmp_path / "study"))
    except NotHere as reason:
        pytest.skip(str(reason))
