"""What datasets are made from."""

from denoiseg_flow.data.combined import parts


def from_source(source):
    """Names of the datasets that come from the given kind of source."""
    return [
        name for name, spec in config["datasets"].items() if spec["source"] == source
    ]


def archive_in_storage(wildcards):
    """An archive that a storage plugin of Snakemake brings; the script downloads others itself."""
    url = config["datasets"][wildcards.dataset]["url"]
    return {} if url.startswith("http") else {"stored": storage.s3(url)}


def source_folders(wildcards):
    """What a dataset is prepared from: the user's folders, or what another job made."""
    spec = config["datasets"][wildcards.dataset]
    if spec["source"] == "combine":
        names = parts(config["datasets"], wildcards.dataset)
        return {"parts": [f"<results>/data/{name}/prepared" for name in names]}
    if spec["source"] != "folder":
        return {"raw": f"<results>/data/{wildcards.dataset}/raw"}
    folders = [key for key in ("images", "masks", "clean") if spec.get(key)]
    return {key: local(spec[key]) for key in folders}
