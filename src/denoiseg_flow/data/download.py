"""Download archives, verify them and unpack them safely; failures leave nothing behind."""

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
# Largest ratio of unpacked to packed size, for archives that unpack to more than HARMLESS bytes.
# Images compress to a half or third, masks to a hundredth, zip bombs to a thousandth or less.
MAX_EXPANSION = 200
HARMLESS = 2**30
MAX_MEMBERS = 10**6
RETRIES = 3
_CHUNK = 2**20
_LONGEST_HEADER = 2**20  # bytes of an extension header in a tar file, such as a long name
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
    FileExistsError,  # a duplicate name, or a file in place of a folder
    NotADirectoryError,
    IsADirectoryError,
    gzip.BadGzipFile,
    NotImplementedError,  # compression method unknown to zipfile
    RuntimeError,  # encrypted zip
    ValueError,  # impossible names and sizes
    IndexError,
    OverflowError,
    struct.error,
    MemoryError,
)
# For impossible offsets and names; bz2 sets no errno.
_IMPOSSIBLE = (errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ, None)


def download(
    url: str,
    target: str | Path,
    sha256: str | None = None,
    stored: str | Path | None = None,
    retries: int = RETRIES,
) -> None:
    """Download a file; ``target`` appears only when complete and verified.

    Parameters
    ----------
    url
        An http or https address; any address if ``stored`` is given.
    target
        Path of the downloaded file.
    sha256
        SHA-256 checksum. None: record it in ``<target>.sha256`` at the first download, and compare
        later downloads with it.
    stored
        The file, if something else (such as a storage plugin) has fetched it from ``url`` already.
    retries
        Number of further attempts after an interrupted or refused connection.

    Raises
    ------
    InputError
        If the server cannot be reached, the download is interrupted, or the checksum differs.
    """
    target = Path(target)
    parts = urlsplit(url)
    if not stored and (parts.scheme not in ("http", "https") or not parts.netloc):
        raise InputError(f"{url} is not an http or https address; correct 'url' in the config")
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
                    f"{url} has sha256 checksum {found}, but {origin}, says {expected}; the file "
                    "has changed or the checksum is wrong, check both"
                )
            os.replace(fetched, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        if sha256 is None:
            record.write_text(f"{found}  {target.name}\n", encoding="utf-8")


def _recorded(record: Path) -> str | None:
    """Return the checksum in a file written in the format of sha256sum; None without a file."""
    words = record.read_text(encoding="utf-8").split() if record.is_file() else []
    return words[0] if words else None


def _fetch(url: str, folder: Path, retries: int) -> Path:
    """Download a file to ``folder``; raise InputError with the cause and the fix."""
    name = "archive"
    store = pooch.create(
        path=folder, base_url="", registry={name: None}, urls={name: url}, retry_if_failed=retries
    )
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty())
    try:
        return Path(store.fetch(name, downloader=downloader))
    except requests.HTTPError as error:
        assert error.response is not None  # raised for an answer of the server
        raise InputError(
            f"cannot download {url}: the server answers {error.response.status_code} "
            f"{error.response.reason}; correct 'url' in the config, or try again later"
        ) from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise InputError(
            f"the download of {url} was interrupted {retries + 1} times; run the workflow again"
        ) from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise InputError(
            f"cannot download {url}: no connection to {urlsplit(url).netloc}; check the network "
            "and 'url' in the config"
        ) from error
    except (requests.RequestException, ValueError) as error:
        raise InputError(f"cannot download {url}: {error}; correct 'url' in the config") from error


class _Member(NamedTuple):
    name: str
    is_folder: bool
    is_file: bool
    """A plain file: neither link nor device."""
    size: int
    """Declared size in bytes."""
    open: Callable[[], IO[bytes] | None]
    """Open a plain file; nothing else can be."""


def unpack(archive: str | Path, folder: str | Path, max_bytes: int = MAX_UNPACKED) -> None:
    """Unpack a zip or tar archive into a new folder, which appears only when complete.

    Parameters
    ----------
    archive
        A zip or (compressed) tar file; its content decides, not its name.
    folder
        Folder to create; an existing one is replaced.
    max_bytes
        Limit of the total unpacked size; lower for small archives, see :data:`MAX_EXPANSION`.

    Raises
    ------
    InputError
        If the archive is damaged, is neither zip nor tar, is too large when unpacked, or has a
        member that is a link, a device or outside ``folder``.
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
                        pass  # to the end, where a compressed tar file has its checksum
    except (*_DAMAGED, OSError) as error:
        if not isinstance(error, _DAMAGED) and error.errno not in _IMPOSSIBLE:
            raise  # such as a full disk
        raise InputError(
            f"cannot unpack archive {archive} ({plain(error)}); delete it and download it again"
        ) from error


class _Header(tarfile.TarInfo):
    """A tar header that raises ReadError if it is damaged or its extension is too long."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        """Return the header in a block of bytes."""
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.InvalidHeaderError as error:  # type: ignore[attr-defined]  # not in typeshed
            # tarfile would treat it as the end of the archive.
            raise tarfile.ReadError(f"damaged header, {error}") from error
        if header.type in _EXTENSIONS and header.size > _LONGEST_HEADER:
            # tarfile would read all of it into memory, though it may be a few compressed bytes.
            raise tarfile.ReadError(f"header of {header.size} bytes")
        return header


def _open_tar(archive: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(archive, tarinfo=_Header)
    except tarfile.ReadError as error:
        raise InputError(
            f"archive {archive} is neither a zip nor a tar file; correct 'url' in the config"
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
        if info.size < 0:  # tarfile would seek backwards, in an endless loop
            raise tarfile.ReadError(f"member of {info.size} bytes")
        content = partial(opened.extractfile, info)
        yield _Member(info.name, info.isdir(), info.isreg(), info.size, content)


def _extract(members: Iterable[_Member], folder: Path, archive: Path, max_bytes: int) -> None:
    """Check all members, then write them to ``folder``."""
    too_large = InputError(
        f"archive {archive} would unpack to more than {max_bytes / 2**30:.3g} GiB or {MAX_MEMBERS} "
        "files, which looks like a mistake or an attack; unpack it by hand and use 'source: folder'"
    )
    targets, left = [], max_bytes
    # Check each member before searching for the next, which may mean a long decompression.
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
        source = member.open()
        assert source is not None
        with source, target.open("xb") as sink:
            while chunk := source.read(_CHUNK):  # count, because declared sizes may be wrong
                left -= len(chunk)
                if left < 0:
                    raise too_large
                sink.write(chunk)


def _target(folder: Path, member: _Member, archive: Path) -> Path:
    """Return the path of a member; raise InputError unless it is a file or folder in ``folder``."""
    inside = PurePosixPath(member.name.replace("\\", "/"))
    if inside.is_absolute() or PureWindowsPath(member.name).drive or ".." in inside.parts:
        problem = "would be written outside its folder"
    elif not (member.is_folder or member.is_file):
        problem = "is a link or a device"
    else:
        return folder / inside
    raise InputError(
        f"archive {archive} is not safe to unpack, because its member {shown(member.name)} "
        f"{problem}; use an archive of plain files only"
    )
