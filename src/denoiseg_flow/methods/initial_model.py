"""The model file or package that a method's ``init`` names, as a plan sees it.

Model files describe themselves in JSON beside their tensors. Packages of the BioImage Model Zoo,
as a zip file or a folder, hold such a model file, or the state dict of one of our networks. Nothing
here imports torch.
"""

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from denoiseg_flow.errors import InputError, plain, shown
from denoiseg_flow.methods.definition import (
    Method,
    Recipe,
    down_samplings,
    method_from_dict,
    recipe_from_dict,
)

#: Name of the JSON description in a model file, which is a zip archive.
DESCRIPTION = "description.json"
#: Name of the model file in a package.
MODEL = "model.pt"
#: How a package names the function that makes our networks.
ARCHITECTURE = {"import_from": "denoiseg_flow.methods.networks", "callable": "build_network"}

_PACKAGE_DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml")
_LARGEST_TEXT = 2**20  # bytes of the description of a package
_RATIO = 100  # texts compress to a tenth, tensors hardly, zip bombs to a thousandth
_DAMAGES = (
    *(AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    *(struct.error, yaml.YAMLError, zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True)
class Source:
    """The file with the weights of an initial model.

    Attributes
    ----------
    path
        The model file, or the package that holds it.
    stored
        Its bytes.
    architecture
        Arguments of :func:`networks.build_network`, for a state dict. None: a model file.
    """

    path: Path
    stored: bytes
    architecture: Mapping[str, Any] | None = None

    @property
    def sha256(self) -> str:
        """Checksum of the file with the weights."""
        return _digest(self.stored)


@dataclass(frozen=True)
class InitialModel:
    """What is known of an initial model before its weights are read.

    Attributes
    ----------
    sha256
        See :attr:`Source.sha256`.
    identity
        dataset, noise, method, n_annotated and seed of its run; empty for a mere state dict.
    network, depth, filters, mask_channel
        Its network.
    dimensions
        2 or 3: that of the network, which may process volumes plane by plane.
    instances
        How it segments objects, see :class:`~denoiseg_flow.methods.definition.Recipe`; None if it
        has no threshold to do so.
    """

    sha256: str
    identity: Mapping[str, Any]
    network: str
    depth: int
    filters: int
    mask_channel: bool = False
    dimensions: int = 2
    instances: str | None = None

    def segments_for(self, method: Method, recipe: Recipe) -> bool:
        """Return whether a method without annotated images is this model, as it is."""
        return not method.denoises and self.instances == recipe.instances

    def check_network(self, method: Method, recipe: Recipe) -> None:
        """Raise InputError unless a method has the network of this model."""
        key = f"methods.{method.name}"
        if (method.network, method.mask_channel) != (self.network, self.mask_channel):
            words = {True: "with mask channel", False: "without mask channel"}
            raise InputError(
                f"{named(method)}, a network '{self.network}' {words[self.mask_channel]}; write "
                f"'network: {self.network}' and 'mask_channel: {str(self.mask_channel).lower()}' "
                f"in {key}"
            )
        sizes = [
            (down_samplings(self.network, depth), filters)
            for depth, filters in ((self.depth, self.filters), (recipe.depth, recipe.filters))
        ]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"{named(method)}, a network with depth {self.depth} and {self.filters} filters, "
                f"but the recipe of {method.name} has depth {recipe.depth} and {recipe.filters} "
                f"filters; name a recipe of the size of the model under '{key}.recipe'"
            )


def check_dimensions(method: Method, own: int, dataset: str, dimensions: int) -> None:
    """Raise InputError unless an initial model has the dimensions of the images of a dataset."""
    wanted = 2 if method.planes else dimensions
    if own != wanted:
        fix = "write 'planes: true' to apply it to each z-slice, or " if wanted == 3 else ""
        seen = "each z-slice of dataset" if method.planes else "dataset"
        raise InputError(
            f"{named(method)}, a network for {own}D images, but {seen} '{dataset}' is {wanted}D; "
            f"{fix}remove {method.name} from grid.methods"
        )


def check_channels(method: Method, own: int, dataset: str, channels: int) -> None:
    """Raise InputError if an initial model cannot be adapted to the channels of a dataset."""
    if own != channels and min(own, channels) > 1:
        raise InputError(
            f"{named(method)}, a network for {own} channels, but dataset '{dataset}' has "
            f"{channels}; choose one of them by its key 'channel', or name a model for one channel "
            f"or for {channels}"
        )


def named(method: Method) -> str:
    """Return the beginning of all messages about the initial model of a method."""
    return f"config key 'methods.{method.name}.init' names {shown(method.init)}"


def find_source(path: Path, start: str) -> Source:
    """Return the file with the weights of an initial model.

    Parameters
    ----------
    path
        A model file or a package.
    start
        The beginning of messages, see :func:`named`.

    Raises
    ------
    InputError
        If the model does not exist, is damaged, or is neither a model of this package nor a package
        with one of its networks.
    """
    if not path.exists():
        raise InputError(f"{start}, which does not exist; correct the path")
    try:
        if path.is_dir() or _is_package(path):
            return _find_in_package(path, start)
        stored = path.read_bytes()
        _check_archive(stored)
    except _DAMAGES as error:
        raise InputError(
            f"{start}, which is damaged or not a model ({plain(error)}); copy it again "
            "from where it was trained or exported"
        ) from error
    return Source(path, stored)


def describe_initial_model(source: Source, start: str) -> InitialModel:
    """Describe the model that a method starts from.

    Parameters
    ----------
    start
        The beginning of messages, see :func:`named`.

    Raises
    ------
    InputError
        If the model does not describe itself, or has no single network.
    """
    if source.architecture is not None:
        return _of_architecture(source, start)
    try:
        return _of_description(source, start)
    except _DAMAGES as error:
        raise InputError(
            f"{start}, which lacks a valid description ({plain(error)}); if it is a model of an "
            "earlier version, write it again by load_model and save_model of denoiseg_flow"
        ) from error


def _of_description(source: Source, start: str) -> InitialModel:
    told = read_description(source.stored)
    own = method_from_dict(told["method"])
    if not own.has_network or own.each_image:
        raise InputError(
            f"{start}, a model of method {shown(own.name)}, which has no single network to "
            "start from; name a model of another method"
        )
    recipe, layout = recipe_from_dict(told["recipe"]), told["layout"]
    return InitialModel(
        source.sha256,
        dict(told["identity"]),
        own.network,
        recipe.depth,
        recipe.filters,
        own.mask_channel,
        2 if layout["plane_by_plane"] else int(layout["dimensions"]),
        recipe.instances if told["threshold"] else None,
    )


def _of_architecture(source: Source, start: str) -> InitialModel:
    """Describe a mere state dict, for grey 2D images as in :func:`networks.build_network`."""
    found = source.architecture or {}
    try:
        return InitialModel(
            source.sha256,
            {},
            str(found["name"]),
            int(found["depth"]),
            int(found["filters"]),
            bool(found.get("mask_channel", False)),
        )
    except _DAMAGES as error:
        raise InputError(
            f"{start}, whose architecture lacks 'name', 'depth' or 'filters'; correct the "
            "'kwargs' of its weights"
        ) from error


def _is_package(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name in archive.namelist() for name in _PACKAGE_DESCRIPTIONS)


def _find_in_package(path: Path, start: str) -> Source:
    stored = _read(path, MODEL)
    if stored is not None:
        _check_archive(stored)
        return Source(path, stored)
    texts = (_read(path, name) for name in _PACKAGE_DESCRIPTIONS)
    text = next((text for text in texts if text is not None), None)
    told = {} if text is None else yaml.safe_load(text[:_LARGEST_TEXT])
    entry = told.get("weights", {}).get("pytorch_state_dict")
    made_by = entry["architecture"] if entry else {}
    if any(made_by.get(key) != value for key, value in ARCHITECTURE.items()):
        raise InputError(
            f"{start}, a package without a network of denoiseg-flow: it holds neither "
            f"'{MODEL}', as those of `denoiseg-flow export` do, nor a state dict of "
            f"{ARCHITECTURE['import_from']}.{ARCHITECTURE['callable']}; export the model again"
        )
    stored = _read(path, entry["source"])
    if stored is None or _digest(stored) != entry.get("sha256", _digest(stored)):
        raise ValueError(f"{entry['source']} is missing or has another checksum")
    return Source(path, stored, dict(made_by.get("kwargs", {})))


def _read(package: Path, name: str) -> bytes | None:
    """Return the content of a file of a package, a zip file or a folder; None if there is none."""
    parts = PurePosixPath(name).parts
    if ".." in parts or name.startswith("/"):
        raise ValueError(f"{name} is outside of the package")
    if package.is_dir():
        file = package / name
        return file.read_bytes() if file.is_file() else None
    with zipfile.ZipFile(package) as archive:
        if name not in archive.namelist():
            return None
        member = archive.getinfo(name)
        if member.file_size > _RATIO * member.compress_size:
            raise ValueError(f"{name} is compressed too much")
        return archive.read(member)


def _digest(stored: bytes) -> str:
    return hashlib.sha256(stored).hexdigest()


def verify_archive(archive: zipfile.ZipFile, size: int) -> int:
    """Return how many bytes an archive of tensors holds.

    Parameters
    ----------
    size
        Bytes of its file.

    Raises
    ------
    ValueError
        If it is damaged, by the checksums of its entries, which PyTorch does not verify.
    """
    n_bytes = sum(member.file_size for member in archive.infolist())
    # PyTorch does not compress, so content larger than the file is a zip bomb.
    if n_bytes > size or archive.testzip() is not None:
        raise ValueError("wrong checksum")
    return n_bytes


def _check_archive(stored: bytes) -> None:
    """Raise ValueError if a zip archive is damaged, from the checksums of its entries."""
    with zipfile.ZipFile(io.BytesIO(stored)) as archive:
        verify_archive(archive, len(stored))


def read_description(stored: bytes) -> Mapping[str, Any]:
    """Return the plain values in a model file, without PyTorch; raise KeyError without any."""
    with zipfile.ZipFile(io.BytesIO(stored)) as archive:
        folder = archive.namelist()[0].split("/")[0]
        return json.loads(archive.read(f"{folder}/{DESCRIPTION}"))
