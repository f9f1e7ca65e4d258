"""Which images a job predicts."""

import os

import pytest

from denoiseg_flow.deployment.chunks import count_chunks, divide, fingerprint


@pytest.mark.parametrize(
    ("n_images", "size", "count"),
    [(1, 1000, 1), (1000, 1000, 1), (1001, 1000, 2), (2001, 1000, 4), (100_000, 1000, 128)],
)
def test_as_many_chunks_as_are_needed_to_a_power_of_two(n_images, size, count):
    assert count_chunks(n_images, size) == count


def test_never_more_chunks_than_can_keep_a_record_of_their_own():
    assert count_chunks(5000, 1) == 1024


def test_every_image_is_in_one_chunk_and_stays_there(tmp_path):
    names = [f"img_{number:06d}" for number in range(1600)]
    images = {name: tmp_path / name for name in names}
    chunks = divide(images, 8)
    assert list(chunks) == list(range(8))
    assert sorted(name for chunk in chunks.values() for name in chunk) == sorted(names)
    assert all(150 < len(chunk) < 250 for chunk in chunks.values())
    assert divide(dict.fromkeys(names[::2]), 8)[3].keys() == chunks[3].keys() & set(names[::2])
    assert divide(images, 4)[3].keys() == chunks[3].keys() | chunks[7].keys()


def test_chunks_without_images_are_left_out(tmp_path):
    assert len(divide({"a": tmp_path}, 64)) == 1


def test_names_that_are_no_text():
    assert divide({os.fsdecode(b"\xff"): None}, 1)


def test_fingerprints_tell_images_that_came_went_or_changed(tmp_path):
    images = {name: tmp_path / name for name in "ab"}
    for path in images.values():
        path.write_text(path.name)
    seen = [fingerprint(images), fingerprint({"a": images["a"]})]
    os.utime(images["b"], ns=(1, 1))
    seen.append(fingerprint(images))
    images["b"].unlink()
    images["b"].symlink_to("nowhere")
    seen.append(fingerprint(images))
    assert len(set(seen)) == 4
    assert fingerprint(images) == seen[-1]
