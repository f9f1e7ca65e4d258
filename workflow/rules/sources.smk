"""Sources of datasets: folders, archives, and other datasets."""

from denoiseg_flow.data.combined import parts


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
    folders = [key for key in ("images", "masks", "clean") if spec.get(key)]
    return {key: local(spec[key]) for key in folders}
