"""Download archives and unpack them safely: complete and verified, or not there at all."""

import errno
import gzip
import lzma
import os
import shutil
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, NamedTuple
from urllib.parse import urlsplit

import pooch
import requests

from denoiseg_flow.errors import InputError, plain, shown
from denoiseg_flow.jobs import checksums
from denoiseg_flow.jobs.atomic import new_folder, sole_writer

MAX_UNPACKED = 100 * 2**30  # bytes; the largest DenoiSeg archive has less than 2 GiB
# Times its own size that an archive may take unpacked, from a size on that does no harm. Images
# are compressed to a half or third, masks to a hundredth; bombs to a thousandth and less.
MAX_EXPANSION = 200
HARMLESS = 2**30
MAX_MEMBERS = 10**6
RETRIES = 3
_CHUNK = 2**20
_LONGEST_HEADER = 2**20  # bytes of a long name and the like in a tar file
_EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    FileExistsError,  # a name twice, or a file where a folder should be
    NotADirectoryError,
    IsADirectoryError,
    gzip.BadGzipFile,
    NotImplementedError,  # compression method that zipfile does not know
    RuntimeError,  # encrypted zip
    ValueError,  # names and sizes that cannot be
    IndexError,
    OverflowError,
    struct.error,
    MemoryError,
)
# Of places and names; bz2 says nothing at all.
_IMPOSSIBLE = (errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ, None)


def download(
    url: str,
    target: str | Path,
    sha256: str | None = None,
    stored: str | Path | None = None,
    retries: int = RETRIES,
) -> None:
    """Download a file; it appears under ``target`` only once it is complete and verified.

    Parameters
    ----------
    url
        An http or https address; any, if the file is ``stored``.
    target
        Where to put the file.
    sha256
        Its SHA-256 checksum. None means: record it in ``<target>.sha256`` at the first download,
        and compare with that ever after.
    stored
        The file, if others have fetched it already from ``url``, such as a storage plugin.
    retries
        How often to try again after an interrupted or refused connection.

    Raises
    ------
    InputError
        If the address cannot be reached, the download is interrupted, or the checksum is wrong.
    """
    target = Path(target)
    parts = urlsplit(url)
    if not stored and (parts.scheme not in ("http", "https") or not parts.netloc):
        raise InputError(f"{url} is not an http or https address: correct `url` in the config")
    record = target.with_name(target.name + ".sha256")
    target.parent.mkdir(parents=True, exist_ok=True)
    with sole_writer(target):
        expected = (sha256 or _recorded(record) or "").lower()
        if target.is_file() and expected and checksums.digest(target) == expected:
            return
        target.unlink(missing_ok=True)
        unfinished = target.with_name(f".{target.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
        unfinished.mkdir()
        try:
            if stored:
                fetched = Path(shutil.copy(stored, unfinished))
            else:
                fetched = _fetch(url, unfinished, retries)
            found = checksums.digest(fetched)
            if expected and found != expected:
                origin = "the config" if sha256 else f"{record}, written at the first download"
                raise InputError(
                    f"{url} has the sha256 checksum {found}, but {origin} says {expected}: the "
                    "file has changed or the checksum is wrong, so check both"
                )
            os.replace(fetched, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        if sha256 is None:
            record.write_text(f"{found}  {target.name}\n")


def _recorded(record: Path) -> str | None:
    """Return the checksum in a file as sha256sum writes it."""
    words = record.read_text().split() if record.is_file() else []
    return words[0] if words else None


def _fetch(url: str, folder: Path, retries: int) -> Path:
    """Download to ``folder``, telling apart what can go wrong."""
    name = "archive"
    store = pooch.create(
        path=folder, base_url="", registry={name: None}, urls={name: url}, retry_if_failed=retries
    )
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty())
    try:
        return Path(store.fetch(name, downloader=downloader))
    except requests.HTTPError as error:
        raise InputError(
            f"{url} cannot be downloaded, the server answers {error.response.status_code} "
            f"{error.response.reason}: correct `url` in the config, or try again later"
        ) from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise InputError(
            f"the download of {url} was interrupted {retries + 1} times: run the workflow again"
        ) from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise InputError(
            f"{urlsplit(url).netloc} cannot be reached to download {url}: check the network and "
            "`url` in the config"
        ) from error
    except (requests.RequestException, ValueError) as error:
        raise InputError(f"{url} cannot be downloaded ({error}): correct `url`") from error


class _Member(NamedTuple):
    name: str
    is_folder: bool
    is_file: bool
    """A plain file: neither link nor device."""
    size: int
    """Bytes, as the archive declares them."""
    open: Callable[[], IO[bytes]]


def unpack(archive: str | Path, folder: str | Path, max_bytes: int = MAX_UNPACKED) -> None:
    """Unpack a zip or tar archive into a new folder; it appears only once it is complete.

    Parameters
    ----------
    archive
        A zip or (compressed) tar file; told apart by content, not by name.
    folder
        Where to unpack; replaced if it exists.
    max_bytes
        Largest total size of the unpacked files; less for small archives, see
        :data:`MAX_EXPANSION`.

    Raises
    ------
    InputError
        If the archive is damaged or neither zip nor tar, is too large unpacked, or has a member
        that is a link or a device or would lie outside ``folder``.
    """
    archive, folder = Path(archive), Path(folder)
    max_bytes = min(max_bytes, max(HARMLESS, MAX_EXPANSION * archive.stat().st_size))
    try:
        with new_folder(folder) as unfinished:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as opened:
                    _extract(_zip_members(opened), unfinished, archive, max_bytes)
            else:
                with _open_tar(archive) as opened:
                    _extract(_tar_members(opened), unfinished, archive, max_bytes)
                    while opened.fileobj.read(_CHUNK):
                        pass  # up to the checksum at the very end of a compressed tar file
    except (*_DAMAGED, OSError) as error:
        if not isinstance(error, _DAMAGED) and error.errno not in _IMPOSSIBLE:
            raise  # such as a full disk
        raise InputError(
            f"archive {archive} cannot be unpacked ({plain(error)}): delete it and download it "
            "again"
        ) from error


class _Header(tarfile.TarInfo):
    """A header that ends the reading of its tar file if it is not to be followed."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> "_Header":
        """Return the header in a block of bytes."""
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.InvalidHeaderError as error:
            # tarfile would take it for the end of the archive.
            raise tarfile.ReadError(f"damaged header, {error}") from error
        if header.type in _EXTENSIONS and header.size > _LONGEST_HEADER:
            # tarfile would read it into memory, from a few compressed bytes.
            raise tarfile.ReadError(f"header of {header.size} bytes")
        return header


def _open_tar(archive: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(archive, tarinfo=_Header)
    except tarfile.ReadError as error:
        raise InputError(
            f"archive {archive} is neither a zip nor a tar file: correct `url` in the config"
        ) from error


def _zip_members(opened: zipfile.ZipFile) -> Iterator[_Member]:
    for info in opened.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        is_file = not info.is_dir() and kind in (0, stat.S_IFREG)
        yield _Member(
            info.filename, info.is_dir(), is_file, info.file_size, partial(opened.open, info)
        )


def _tar_members(opened: tarfile.TarFile) -> Iterator[_Member]:
    for info in opened:
        if info.size < 0:  # from which tarfile would go backwards, in circles
            raise tarfile.ReadError(f"member of {info.size} bytes")
        content = partial(opened.extractfile, info)
        yield _Member(info.name, info.isdir(), info.isreg(), info.size, content)


def _extract(members: Iterable[_Member], folder: Path, archive: Path, max_bytes: int) -> None:
    """Write all members under ``folder``, after all of them have been found harmless."""
    too_large = InputError(
        f"archive {archive} would take more than {max_bytes / 2**30:.3g} GiB or {MAX_MEMBERS} "
        "files unpacked, which looks like a mistake or an attack: unpack it by hand and use "
        "`source: folder`"
    )
    targets, left = [], max_bytes
    # Each is judged before the next is looked for, which may be a long way of decompression.
    for member in members:
        targets.append((member, _target(folder, member, archive)))
        left -= member.size
        if left < 0 or len(targets) > MAX_MEMBERS:
            raise too_large
    left = max_bytes
    for member, target in targets:
        if member.is_folder:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, target.open("xb") as sink:
            while chunk := source.read(_CHUNK):  # declared sizes may lie, so count
                left -= len(chunk)
                if left < 0:
                    raise too_large
                sink.write(chunk)


def _target(folder: Path, member: _Member, archive: Path) -> Path:
    """Return where a member goes, refusing whatever is not a file or folder inside ``folder``."""
    inside = PurePosixPath(member.name.replace("\\", "/"))
    if inside.is_absolute() or PureWindowsPath(member.name).drive or ".." in inside.parts:
        problem = "would be written outside its folder"
    elif not (member.is_folder or member.is_file):
        problem = "is a link or a device"
    else:
        return folder / inside
    raise InputError(
        f"archive {archive} is not safe to unpack, its member {shown(member.name)} {problem}: use "
        "an archive of plain files only"
    )
