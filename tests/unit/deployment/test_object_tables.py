"""The tables of all new images."""

import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet
import pytest

from denoiseg_flow.deployment import object_tables, parquet
from denoiseg_flow.deployment.csv_tables import table_of
from denoiseg_flow.deployment.ledger import Entry, Record, shard
from denoiseg_flow.deployment.object_tables import join_results, refuse_failures
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


def add(out, name, rows=None, model="m", **found):
    """What a job leaves of an image."""
    if "failed" not in found:
        text = f"image,label,t,area\n{rows}" if rows else TABLES[name]
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
    assert sorted(path.name for path in out.iterdir()) == [
        *(".joined", "images.tsv", "objects", "objects.csv", "objects.parquet")
    ]


def test_nothing_is_joined_again_without_need(out, monkeypatch):
    add(out, "a")
    join_results(["a"], out)
    with monkeypatch.context() as patch:
        patch.setattr(object_tables, "write_csv", lambda *_: pytest.fail("joined again"))
        join_results(["a"], out)
    (out / "objects.csv").unlink()
    shutil.rmtree(out / "objects.parquet")
    join_results(["a"], out)
    assert (out / "objects.csv").read_text() == TABLES["a"]
    assert (out / "objects.parquet").is_dir()


def test_new_images_are_appended_without_reading_the_others(out, monkeypatch):
    monkeypatch.setattr(parquet, "IMAGES", 2)
    names = [f"image{number}" for number in range(6)]
    for name in names:
        add(out, name, f"{name},1,0,5\n")
    join_results(names, out)
    before = (out / "objects.csv").read_text()
    add(out, "new", "new,1,0,7\n")
    part = [each for each in names if shard(each) % 4 != shard("new") % 4]
    for name in part:
        table_of(name, out).write_text("not to be read again\n")
    assert part and join_results([*names, "new"], out) == {}
    assert (out / "objects.csv").read_text() == f"{before}new,1,0,7\n"
    assert pd.read_parquet(out / "objects.parquet")["area"].sum() == 6 * 5 + 7


def test_a_damaged_table_of_a_part_that_changes_is_noticed(out):
    add(out, "a")
    join_results(["a"], out)
    table_of("a", out).write_text("image,label,area\n")
    add(out, "b")
    assert list(join_results(["a", "b"], out)) == ["a"]
    assert (out / "objects.csv").read_text() == TABLES["b"]
    assert pd.read_parquet(out / "objects.parquet")["image"].tolist() == ["b"]


@pytest.mark.parametrize(
    "change",
    [
        lambda out: add(out, "d"),  # another column
        lambda out: add(out, "b", "b,1,0,31\n"),
        lambda out: Record(out).add(Entry("b", "b.tif", 1, 1, "m", failed="it is gone")),
        lambda out: (out / "objects.csv").write_text("image,label,t,area\nb,1,"),
        lambda out: (out / "objects.csv").unlink(),
    ],
)
def test_all_is_joined_anew_unless_images_were_only_added(out, change):
    for name in "bc":
        add(out, name)
    join_results(["b", "c"], out)
    change(out)
    add(out, "a")
    join_results("abcd", out)
    found = pd.read_csv(out / "objects.csv")
    entries = [entry for entry in Record(out).read().values() if not entry.failed]
    for entry in entries:
        expected = pd.read_csv(table_of(entry.image, out))
        rows = found[found["image"].str.startswith(entry.image)]
        assert rows[list(expected)].values.tolist() == expected.values.tolist()
    assert len(found) == sum(entry.objects for entry in entries)


def test_rows_of_a_killed_join_are_not_there_twice(out, monkeypatch):
    add(out, "b")
    join_results(["b"], out)
    add(out, "c")
    with monkeypatch.context() as patch:
        patch.setattr(Record, "replace", lambda *_: 1 / 0)
        add(out, "a")
        with pytest.raises(ZeroDivisionError):
            join_results(["a", "b", "c"], out)
    join_results(["a", "b", "c"], out)
    assert pd.read_csv(out / "objects.csv")["area"].tolist() == [10, 20, 30]


def test_the_parquet_dataset_holds_the_rows_of_the_csv_file(out, monkeypatch):
    monkeypatch.setattr(parquet, "IMAGES", 1)
    for name in "abcd":
        add(out, name)
    join_results("abcd", out)
    found = pd.read_parquet(out / "objects.parquet").sort_values(["area"], ignore_index=True)
    expected = pd.read_csv(out / "objects.csv").sort_values(["area"], ignore_index=True)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    schemas = [
        pyarrow.parquet.read_schema(path).remove_metadata()
        for path in (out / "objects.parquet").iterdir()
    ]
    assert len(schemas) > 1 and all(each.equals(schemas[0]) for each in schemas)


def test_metadata_of_the_parquet_dataset_is_text(out):
    """Polars refuses anything else."""
    add(out, "a")
    join_results("a", out)
    (part,) = (out / "objects.parquet").iterdir()
    metadata = pyarrow.parquet.read_schema(part).metadata
    assert all(value.decode("ascii").isprintable() for value in metadata.values())


def test_only_parts_of_the_dataset_that_change_are_written(out, monkeypatch):
    monkeypatch.setattr(parquet, "IMAGES", 2)
    names = [f"image{number}" for number in range(8)]
    for name in names:
        add(out, name, f"{name},1,0,5\n")
    join_results(names, out)
    before = {path: path.stat().st_mtime_ns for path in (out / "objects.parquet").iterdir()}
    add(out, "image0", "image0,1,0,6\n")
    join_results(names, out)
    after = {path: path.stat().st_mtime_ns for path in (out / "objects.parquet").iterdir()}
    changed = [path for path in after if after[path] != before[path]]
    assert before.keys() == after.keys() and len(changed) == 1 < len(before)
    assert pd.read_parquet(out / "objects.parquet").set_index("image")["area"]["image0"] == 6
    # Fewer images need fewer parts; none of the others stays.
    for name in names[1:]:
        Record(out).add(Entry(name, f"{name}.tif", 1, 1, "m", failed="it is gone"))
    join_results(names, out)
    assert [path.name for path in (out / "objects.parquet").iterdir()] == [
        "part-0000-of-0001.parquet"
    ]


def test_a_damaged_part_is_written_again(out):
    add(out, "a")
    join_results(["a"], out)
    (part,) = (out / "objects.parquet").iterdir()
    part.write_bytes(b"PAR1")
    add(out, "c")
    join_results(["a", "c"], out)
    assert len(pd.read_parquet(out / "objects.parquet")) == 2


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
    assert not (out / "objects.csv").exists() and not (out / "objects.parquet").exists()


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
