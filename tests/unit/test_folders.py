"""Pairing files by name."""

import pytest

from denoiseg_flow.data import folders
from denoiseg_flow.errors import InputError


@pytest.fixture
def make(tmp_path):
    """Make empty files, by path relative to the test's folder, and return that folder."""

    def _make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return _make


def refusal(*arguments):
    with pytest.raises(InputError) as caught:
        folders.find(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pairs_by_name_whatever_the_ending(make):
    root = make(
        "i/b.TIF", "i/a.ome.tif", "i/c.png", "i/.hidden.tif", "i/notes.txt", "m/a.png", "m/c.tiff"
    )
    found = folders.find(root / "i", root / "m")
    assert [source.name for source in found] == ["a", "b", "c"]
    assert [source.mask and source.mask.name for source in found] == ["a.png", None, "c.tiff"]
    assert found[0].image.name == "a.ome.tif" and found[0].clean is None


def test_folders_named_like_zarr_stores_are_images(make):
    root = make(
        "i/a.ome.zarr/.zgroup", "i/b.ZARR/zarr.json", "i/c.tif", "i/d.zarr", "i/e.tif/x.tif"
    )
    found = folders.find(root / "i")
    assert [source.name for source in found] == ["a", "b", "c"]
    assert found[0].image == root / "i/a.ome.zarr"
    given = [root / "i/b.ZARR", root / "i/e.tif", root / "i/c.tif"]
    assert list(folders.find_images(given)) == ["b", "x", "c"]
    with pytest.raises(InputError, match=r"d\.zarr is no image: .*\.ome\.zarr.*\.zarr"):
        folders.find_images([root / "i/d.zarr"])


def test_clean_may_be_the_images_themselves(make):
    root = make("i/a.tif")
    (source,) = folders.find(root / "i", None, root / "i")
    assert source.clean == source.image and source.mask is None


def test_refuses_missing_empty_and_unusable_folders(make):
    root = make("i/a.tif", "jpg/a.jpg", "empty/sub/a.tif")
    assert "does not exist" in refusal(root / "none")
    assert "is not a folder" in refusal(root / "i" / "a.tif")
    message = refusal(root / "empty")
    assert "holds no image" in message and ".ome.tif" in message and "`images`" in message
    assert ".jpg" in refusal(root / "jpg")
    message = refusal(root / "i", root / "jpg")
    assert "`masks`" in message and str(root / "jpg") in message


def test_refuses_two_files_of_one_name(make):
    root = make("i/a.tif", "i/a.png")
    message = refusal(root / "i")
    assert "a.tif" in message and "a.png" in message


def test_refuses_masks_and_clean_images_without_image(make):
    root = make("i/a.tif", "m/a.tif", "m/b.tif", "m/c.tif")
    message = refusal(root / "i", root / "m")
    assert "b.tif" in message and "1 more" in message and "`masks`" in message
    assert "`clean`" in refusal(root / "i", None, root / "m")


def test_odd_names_are_names(make):
    """Whatever a shell, Snakemake, Python or a browser would make of them."""
    odd = ["a b", "it's", 'say "hi"', "-rf", "--help", "$(touch x)", "; touch x", "{input}", "%s",
           "<img src=x onerror=alert(1)>", "é", "細胞", "+DMSO (2)", "-20 °C", "a*b?[c]",
           "~"]  # fmt: skip
    folder = make(*(f"images/{name}.tif" for name in odd))
    assert [source.name for source in folders.find(folder / "images")] == sorted(odd)
    assert set(folders.find_images([folder / "images"])) == set(odd)


def test_accents_are_the_same_however_they_are_written(make):
    """macOS parts them from their letters, and so do archives that were made there."""
    folder = make("images/e\u0301.tif", "masks/\u00e9.png")
    (source,) = folders.find(folder / "images", folder / "masks")
    assert source.name == "\u00e9" and source.mask is not None
    make("images/\u00e9.tif")
    assert "same name" in refusal(folder / "images")


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x1b[2Jb", "a\u202eb", "a\udcffb"])
def test_names_that_cannot_be_printed(make, name):
    folder = make(f"images/{name}.tif")
    message = refusal(folder / "images")
    assert "cannot be printed" in message and message.isascii()


@pytest.mark.parametrize("name", ["=1+1", "@SUM(A1)", "+HYPERLINK(A1)", "-1+cmd|'c'!A0", "=é"])
def test_names_that_a_spreadsheet_would_compute(make, name):
    assert "formula" in refusal(make(f"images/{name}.tif") / "images")
