"""Buckets and containers. The plugin and a server for S3 are not among the test requirements."""

import os
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from denoiseg_flow.data.files.reader import read_image
from denoiseg_flow.data.store import write_array

RAW = "results/data/nuclei/raw"


def test_jobs_run_in_the_container_of_the_config(tmp_path, call_snakemake, monkeypatch):
    """Apptainer is played by a script that notes how it is called, and runs the job as it is."""
    image, calls = tmp_path / "denoiseg-flow.sif", tmp_path / "calls"
    image.touch()
    (tmp_path / "bin").mkdir()
    apptainer = tmp_path / "bin/apptainer"
    apptainer.write_text(
        "#!/usr/bin/env bash\n"
        '[ "$1" = --version ] && { echo "apptainer version 1.3.0"; exit; }\n'
        f'echo "$@" >> "{calls}"\n'
        'exec bash -c "${@: -1}"\n'
    )
    apptainer.chmod(0o755)
    inside = (apptainer.parent, Path(sys.executable).parent)  # the image has a Python of its own
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, inside)), prepend=os.pathsep)
    options = ("--cores", "1", "--software-deployment-method", "apptainer")
    call = call_snakemake(tmp_path, *options, "--config", f"container={image}", "--", RAW)
    assert call.status == 0, call.screen
    assert calls.read_text().startswith("exec ") and f" {image} bash -c " in calls.read_text()
    assert list((tmp_path / RAW).rglob("*.tif"))


@pytest.mark.skipif(find_spec("snakemake_storage_plugin_s3") is not None, reason="it is installed")
def test_a_bucket_without_the_plugin(tmp_path, call_snakemake):
    remote = "{archived: {source: remote, url: s3://images/a.zip, format: folder, images: images}}"
    call = call_snakemake(
        tmp_path, "--dry-run", "--config", f"datasets={remote}", "grid={datasets: [archived]}"
    )
    assert call.status != 0
    assert "The package snakemake-storage-plugin-s3 is not installed" in call.screen


@pytest.fixture
def bucket(monkeypatch):
    """A bucket of a local server, and the options by which Snakemake finds it."""
    pytest.importorskip("snakemake_storage_plugin_s3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    monkeypatch.setenv("SNAKEMAKE_STORAGE_S3_ACCESS_KEY", "any")
    monkeypatch.setenv("SNAKEMAKE_STORAGE_S3_SECRET_KEY", "any")
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    s3 = pytest.importorskip("boto3").resource(
        "s3",
        endpoint_url=url,
        aws_access_key_id="any",
        aws_secret_access_key="any",
        region_name="us-east-1",
    )
    bucket = s3.Bucket("study")
    bucket.create()
    yield bucket, ("--storage-s3-endpoint-url", url)
    server.stop()


def test_an_archive_in_a_bucket(bucket, tmp_path, call_snakemake):
    bucket, server = bucket
    mask = np.zeros((64, 64), np.uint8)
    mask[10:20, 10:20], mask[40:50, 40:50] = 1, 2
    image = 50 * mask + np.arange(64, dtype=np.uint8)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for kind, pixels in (("images", image), ("masks", mask)):
            write_array(tmp_path / "a.tif", pixels)
            archive.write(tmp_path / "a.tif", f"{kind}/a.tif")
    bucket.upload_file(str(tmp_path / "a.zip"), "archives/a.zip")
    remote = (
        "{archived: {source: remote, url: s3://study/archives/a.zip, format: folder, "
        "images: images, masks: masks}}"
    )
    config = ("--config", f"datasets={remote}", "grid={datasets: [archived]}")
    prepared = "results/data/archived/prepared"
    call = call_snakemake(tmp_path, "--cores", "1", *server, *config, "--", prepared)
    assert call.status == 0, call.screen
    assert (read_image(tmp_path / prepared / "images/a.tif") == image).all()
    assert (tmp_path / "results/data/archived/archive.zip.sha256").exists()


def test_results_in_a_bucket(bucket, tmp_path, call_snakemake):
    bucket, server = bucket
    options = (
        *("--cores", "2", *server, "--default-storage-provider", "s3"),
        *("--default-storage-prefix", "s3://study/first"),
    )
    call = call_snakemake(tmp_path, *options)
    assert call.status == 0, call.screen
    keys = {each.key for each in bucket.objects.all()}
    assert {"first/results/report.html", "first/results/tables/metrics.csv"} < keys
    assert not Path(tmp_path / "results").exists()
    assert "Nothing to be done" in call_snakemake(tmp_path, *options).screen
