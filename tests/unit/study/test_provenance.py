"""What a folder of results was made by, and who may go on in it."""

import json

import pytest

from denoiseg_flow.errors import InputError
from denoiseg_flow.methods.definition import Method, as_dict
from denoiseg_flow.study import provenance
from denoiseg_flow.study.grid import Run
from denoiseg_flow.study.provenance import check_results, read_config, read_runs, record_study

JOINT = {"denoiseg": as_dict(Method(name="denoiseg", target="blind_spot", alpha=0.5))}
CONFIG = {"grid": {"seeds": [1]}}
RUNS = {Run("nuclei", "n10", "denoiseg", 4, 1): ["train", "predict_run", "score"]}
OTHER = {"denoiseg": JOINT["denoiseg"] | {"alpha": 0.3}}


@pytest.fixture
def results(tmp_path):
    """A folder with a run of the method."""
    folder = tmp_path / "results"
    record_study(folder, JOINT, CONFIG, RUNS)
    (folder / "runs/nuclei/n10/denoiseg/annotated4/seed1").mkdir(parents=True)
    return folder


def refusal(folder, methods):
    with pytest.raises(InputError) as caught:
        check_results(folder, methods)
    return str(caught.value)


def test_the_same_study_goes_on(results):
    check_results(results, JOINT)


def test_a_new_folder_is_nobodys(tmp_path):
    check_results(tmp_path / "new", JOINT)
    assert not (tmp_path / "new").exists()


def test_tuples_are_the_lists_that_they_become(results):
    method = {"structn2v": as_dict(Method(name="structn2v", struct_mask=((1, 1, 1),)))}
    record_study(results, method, CONFIG, RUNS)
    (results / "runs/nuclei/n10/structn2v").mkdir()
    check_results(results, method)


def test_another_definition_of_the_same_name(results):
    text = refusal(results, OTHER)
    assert "method 'denoiseg' has alpha 0.3" in text
    assert f"existing runs in {results} used alpha 0.5" in text
    assert "'methods.denoiseg'" in text
    assert f"delete {results}/runs/*/*/denoiseg" in text


def test_fields_of_another_version_do_not_count(results):
    record = results / "study.json"
    record.write_text(record.read_text().replace('"alpha": 0.5,', '"older": 1,'))
    check_results(results, OTHER)


def test_the_advice_helps(results):
    (results / "runs/nuclei/n10/denoiseg/annotated4/seed1").rmdir()
    (results / "runs/nuclei/n10/denoiseg/annotated4").rmdir()
    (results / "runs/nuclei/n10/denoiseg").rmdir()
    check_results(results, OTHER)


def test_methods_of_other_studies_stay_in_the_record(results):
    n2v = {"n2v": as_dict(Method(name="n2v", target="blind_spot", alpha=1))}
    record_study(results, n2v, CONFIG, RUNS)
    refusal(results, OTHER)
    assert [path.name for path in results.iterdir() if path.is_file()] == ["study.json"]


@pytest.mark.parametrize("change, age", [(-1, "an older"), (1, "a newer")])
def test_results_of_another_version(results, monkeypatch, change, age):
    monkeypatch.setattr(provenance, "FORMAT", provenance.FORMAT - change)
    text = refusal(results, JOINT)
    assert f"the results in {results} were written by {age} version of the workflow" in text
    assert "pathvars" in text


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 1}', '{"format": "x", "methods": {}}', "\xff"]
)
def test_damaged_record(results, text):
    path = results / "study.json"
    path.write_bytes(text.encode("latin-1"))
    assert f"{path} is damaged" in refusal(results, JOINT)


def test_record_is_readable(results):
    record = json.loads((results / "study.json").read_text())
    assert record["methods"] == {
        name: json.loads(json.dumps(method)) for name, method in JOINT.items()
    }


def test_runs_of_the_last_study(results):
    assert read_runs(results) == RUNS
    other = {Run("nuclei", "n10", "n2v", 0, 2): ["train"]}
    record_study(results, JOINT, CONFIG, other)
    assert read_runs(results) == other


@pytest.mark.parametrize("change, age", [(-1, "an older"), (1, "a newer")])
def test_a_study_of_another_version_is_not_read(results, monkeypatch, change, age):
    monkeypatch.setattr(provenance, "FORMAT", provenance.FORMAT - change)
    for read in (read_config, read_runs):
        with pytest.raises(InputError, match=f"study.json was written by {age} version"):
            read(results)


@pytest.mark.parametrize("runs", ["[1]", '["a"]', "[{}]", "3"])
def test_runs_that_are_none(results, runs):
    record = results / "study.json"
    known = json.dumps(json.loads(record.read_text())["runs"])
    whole = json.dumps(json.loads(record.read_text()))
    record.write_text(whole.replace(known, runs))
    with pytest.raises(InputError, match="is damaged"):
        read_runs(results)


def test_config_of_the_last_study(results, tmp_path):
    assert read_config(results) == CONFIG
    record_study(results, JOINT, {"grid": {"seeds": [2]}}, RUNS)
    assert read_config(results)["grid"] == {"seeds": [2]}
    with pytest.raises(InputError, match="is no folder of results"):
        read_config(tmp_path)
    record = results / "study.json"
    record.write_text(json.dumps({"format": 1, "methods": {}}))
    with pytest.raises(InputError, match="written by an earlier version, without the config"):
        read_config(results)
