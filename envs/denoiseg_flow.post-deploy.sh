#!/usr/bin/env bash
# Snakemake runs this in the new environment, from its working directory.
set -eu
repository=${DENOISEG_FLOW:-.}
if ! grep -qs '^name = "denoiseg-flow"' "$repository/pyproject.toml"; then
    echo "Error: set DENOISEG_FLOW to the folder of the DenoiSeg-Flow repository" >&2
    exit 1
fi
python -m pip install --no-deps --editable "$repository"
