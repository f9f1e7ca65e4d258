"""The tables of all new images."""

from pathlib import Path

import pandas as pd
import pytest

from denoiseg_flow.deployment import object_tables
from denoiseg_flow.deployment.ledger import Entry, Record
from denoiseg_flow.deployment.object_tables import join_results, refuse_failures, table_of
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs import checksums

TABLES = {
    "a": 'image,label,area\na,1,10\n"a ""quoted"", one",2,20\n',
    "b": "image,label,t,area\nb,1,0,30\n",
    "c": "image,label,area\n",
    "d": "image,label,area,area_um2\nd,1,40,2.5\n",
}


@pytest.fixture
def out(tmp_path):
    (tmp_path / "objects").mkdir()
    return tmp_path


def add(out, name, model="m", **found):
    """What a job leaves of an image."""
    if "failed" not in found:
        text = TABLES[name]
        table_of(name, out).write_text(text)
        found = {"objects": text.count("\n") - 1, "table": checksums.digest(table_of(name, out))}
        found["results"] = "objects.csv"
    Record(out).add(Entry(name, f"{name}.tif", 1, 1, model, **found))


def test_tables_of_different_columns_are_joined(out):
    for name in "dcba":
        add(out, name)
    join_results(["a", "b", "c", "d"], out)
    assert (out / "objects.csv").read_text() == (
        "image,label,t,area,area_um2\n"
        "a,1,,10,\n"
        '"a ""quoted"", one",2,,20,\n'
        "b,1,0,30,\n"
        "d,1,,40,2.5\n"
    )


def test_tables_of_the_same_columns_are_joined_as_they_are(out):
    for name in "ac":
        add(out, name)
    join_results(["a", "c"], out)
    assert (out / "objects.csv").read_text() == TABLES["a"]
    images = pd.read_csv(out / "images.tsv", sep="\t")
    assert images["image"].tolist() == ["a", "c"] and images["objects"].tolist() == [2, 0]
    assert sorted(path.name for path in out.iterdir()) == ["images.tsv", "objects", "objects.csv"]


def test_nothing_is_joined_again_without_need(out, monkeypatch):
    add(out, "a")
    join_results(["a"], out)
    with monkeypatch.context() as patch:
        patch.setattr(object_tables, "_join", lambda *_: pytest.fail("joined again"))
        join_results(["a"], out)
    (out / "objects.csv").unlink()
    join_results(["a"], out)
    assert (out / "objects.csv").read_text() == TABLES["a"]


def test_a_join_that_was_killed_is_made_again(out, monkeypatch):
    add(out, "a")
    with monkeypatch.context() as patch:
        patch.setattr(Record, "replace", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            join_results(["a"], out)
    join_results(["a"], out)
    assert (out / "images.tsv").exists() and not (out / ".record").exists()


def test_the_last_word_on_an_image_counts(out):
    add(out, "a")
    join_results(["a"], out)
    add(out, "a", failed="it is gone")
    add(out, "b", failed="not yet there")
    add(out, "b")
    (out / "objects/a.csv").unlink()
    failed = join_results(["a", "b"], out)
    assert failed == {"a": Path("a.tif")}
    with pytest.raises(InputError, match=r"1 of 2 images could not be predicted \(a\.tif\)"):
        refuse_failures(failed, 2, out)
    assert (out / "objects.csv").read_text() == TABLES["b"]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("image,label\n")])
def test_a_table_that_is_not_as_it_was_written_is_left_out(out, damage):
    for name in "abd":
        add(out, name)
    damage(table_of("a", out))
    damage(table_of("d", out))
    assert list(join_results(["a", "b"], out)) == ["a"]
    assert (out / "objects.csv").read_text() == TABLES["b"]
    entries = Record(out).read()
    assert all(f"objects/{name}.csv was damaged" in entries[name].failed for name in "ad")


def test_images_of_earlier_calls_stay_but_count_only_if_done_by_the_same_model(out):
    add(out, "a")
    add(out, "b", model="other")
    add(out, "c")
    (out / "objects/c.csv").unlink()
    add(out, "d")
    Record(out).add(Entry("e", "e.tif", 1, 1, "m", failed="damaged"))
    join_results(["d"], out)
    entries = Record(out).read()
    assert [name for name, entry in entries.items() if not entry.failed] == ["a", "d"]
    assert (out / "objects.csv").read_text().count("\n") == 4
    # What is there of the others remains known.
    assert "with another model" in entries["b"].failed and "deleted" in entries["c"].failed
    assert entries.keys() == set("abcd")


def test_a_model_that_finds_no_objects_any_more(out):
    add(out, "a")
    join_results(["a"], out)
    Record(out).add(Entry("a", "a.tif", 1, 1, "denoiser"))
    join_results(["a"], out)
    assert not (out / "objects.csv").exists()


def test_an_entry_that_was_cut_off_does_not_harm_the_next(out):
    add(out, "a")
    (path,) = (out / ".record").iterdir()
    with path.open("a") as file:
        file.write("a\ta.tif\t1")
    add(out, "a", failed="damaged")
    assert Record(out).read()["a"].failed == "damaged"
    path.write_text("a")
    add(out, "a")
    assert list(Record(out).read()) == ["a"]
