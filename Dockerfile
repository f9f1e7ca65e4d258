# DenoiSeg-Flow and everything it needs, to run as a whole in a container: docs/how-to/containers.md
#
#   docker build -t denoiseg-flow .
#   docker build -t denoiseg-flow:cuda --build-arg TORCH=cu130 .    # NVIDIA GPUs
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

# Which builds of https://download.pytorch.org/whl are preferred to those of PyPI.
ARG TORCH=cpu

WORKDIR /opt/denoiseg-flow
# First what changes rarely, so that a change of the code does not install everything anew.
COPY pyproject.toml hatch_build.py constraints.txt README.md LICENSE ./
COPY src/denoiseg_flow/__init__.py src/denoiseg_flow/version.py src/denoiseg_flow/
RUN python -m pip install --no-cache-dir -c constraints.txt \
    --extra-index-url "https://download.pytorch.org/whl/${TORCH}" -e '.[export,s3]'
COPY . .
# The user of the container cannot write here, and every job would compile the package again.
RUN python -m compileall -q src

# Anybody may run it (docker run --user "$(id -u)"), also a user without name and home folder.
ENV HOME=/tmp USER=denoiseg
USER 1000:1000
# Configs, images and results: docker run --volume "$PWD:/study"
WORKDIR /study
ENTRYPOINT ["snakemake", "--snakefile", "/opt/denoiseg-flow/Snakefile"]
CMD ["--cores", "all"]
