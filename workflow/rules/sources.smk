"""Sources of datasets: folders, archives, and other datasets."""

from itertools import chain

from denoiseg_flow.data.combined import parts
from denoiseg_flow.data.folders import read_subfolders
from denoiseg_flow.data.sources import FOLDER_KEYS, levels_of


def from_source(source):
    """Return the names of the datasets from the given kind of source."""
    return [
        name for name, spec in config["datasets"].items() if spec["source"] == source
    ]


def archive_in_storage(wildcards):
    """Return an archive that a storage plugin retrieves; the script downloads all others."""
    url = config["datasets"][wildcards.dataset]["url"]
    return {} if url.startswith("http") else {"stored": storage.s3(url)}


def source_folders(wildcards):
    """Return what a dataset is prepared from: folders of the user, or outputs of other jobs."""
    spec = config["datasets"][wildcards.dataset]
    if spec["source"] == "combine":
        names = parts(config["datasets"], wildcards.dataset)
        return {"parts": [f"<results>/data/{name}/prepared" for name in names]}
    if spec["source"] != "folder":
        return {"raw": f"<results>/data/{wildcards.dataset}/raw"}
    found = {key: local(spec[key]) for key in FOLDER_KEYS if spec.get(key)}
    levels = read_subfolders(
        [Path(folder) for folder in found.values()], levels_of(spec)
    )
    # The time of a folder does not change with what is in its subfolders.
    return found | ({"subfolders": local(list(chain(*levels)))} if levels else {})


def split_file(wildcards):
    """Return the table of a split, if there is one."""
    split = split_of(config["datasets"], wildcards.dataset)
    file = None if isinstance(split, str) else split.get("file")
    return {"file": local(file)} if file else {}
