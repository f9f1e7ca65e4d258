#!/usr/bin/env bash
# Make the folder that run.py takes to a machine with a GPU but without network and Snakemake:
#
#   benchmarks/gpu/pack.sh IMAGES MASKS [OUT]
#
# IMAGES are taken as free of noise. OUT is benchmarks/gpu/pack if it is not named; git ignores that.
# It holds the prepared dataset with the splits of eight draws (data.tar.xz), and the methods,
# recipes and noise levels of the default config with all their defaults (settings.json).
set -eu
images=$(realpath "$1") masks=$(realpath "$2")
here=$(cd "$(dirname "$0")" && pwd)
out=${3:-$here/pack}
mkdir -p "$out"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

splits=()
for seed in 1 2 3 4 5 6 7 8; do splits+=("results/data/dsb2018/split/seed$seed.tsv"); done
snakemake --snakefile "$here/../../Snakefile" --directory "$scratch" --workflow-profile none \
    --cores all --quiet all --configfile "$here/../../config/dsb2018.yaml" \
    --config "datasets={dsb2018: {images: '$images', masks: '$masks', clean: '$images'}}" \
    'grid={n_annotated: [all], seeds: [1, 2, 3, 4, 5, 6, 7, 8]}' \
    -- results/data/dsb2018/prepared "${splits[@]}"

# The clean images are the images themselves, and run.py makes a link of them.
tar --create --xz --file "$out/data.tar.xz" --directory "$scratch/results/data/dsb2018" \
    --exclude clean --exclude '*.sha256' prepared split

python - "$here/.." > "$out/settings.json" <<'PYTHON'
import json
import sys

sys.path.insert(0, sys.argv[1])
from systems import read_config, read_method

config = read_config()
settings = {name: config[name] for name in ("recipes", "noises")}
settings["methods"] = {name: read_method(name) for name in config["methods"]}
json.dump(settings, sys.stdout, indent=1)
PYTHON
du --human-readable --total "$out"/*
