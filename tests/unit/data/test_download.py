"""Downloads are complete and verified or absent; archives cannot write outside their folder."""

import errno
import hashlib
import io
import os
import socket
import stat
import tarfile
import zipfile
from http.server import BaseHTTPRequestHandler

import pytest

from denoiseg_flow.data import download as module
from denoiseg_flow.data.download import download, unpack
from denoiseg_flow.errors import InputError

CONTENT = bytes(range(256)) * 64
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serve /good, /short (ends early), /flaky (ends early once), /moved and nothing else."""

    def do_GET(self):
        server = self.server
        server.requests.append(self.path)
        path = self.path.split("?")[0]
        if path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/good?download=1")
            self.end_headers()
            return
        if path not in ("/good", "/short", "/flaky"):
            self.send_error(404)
            return
        ends_early = path == "/short" or (path == "/flaky" and len(server.requests) == 1)
        self.send_response(200)
        self.send_header("Content-Length", str(len(server.content)))
        self.end_headers()
        self.wfile.write(server.content[:100] if ends_early else server.content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(serve):
    server = serve(Handler)
    server.requests, server.content = [], CONTENT
    return server


def refusal(function, *arguments, **options):
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_download_records_its_checksum_and_compares_ever_after(server, tmp_path):
    target = tmp_path / "raw" / "a.zip"
    download(f"{server.url}/moved", target, retries=0)
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == ["a.zip", "a.zip.sha256"]
    assert (tmp_path / "raw" / "a.zip.sha256").read_text().split() == [SHA256, "a.zip"]
    n_requests = len(server.requests)
    download(f"{server.url}/good", target, retries=0)
    assert len(server.requests) == n_requests, "downloaded again what is already there"
    target.unlink()
    server.content = b"something else"
    message = refusal(download, f"{server.url}/good", target, retries=0)
    assert "first download" in message and SHA256 in message
    assert names(target.parent) == ["a.zip.sha256"]


def test_a_file_that_others_fetched_is_verified_and_recorded(tmp_path):
    stored, target = tmp_path / "stored", tmp_path / "raw/a.zip"
    stored.write_bytes(CONTENT)
    download("s3://bucket/a.zip", target, stored=stored)
    assert target.read_bytes() == stored.read_bytes() == CONTENT
    assert (tmp_path / "raw/a.zip.sha256").read_text().split() == [SHA256, "a.zip"]
    stored.write_bytes(b"something else")
    target.unlink()
    message = refusal(download, "s3://bucket/a.zip", target, stored=stored)
    assert message.startswith("s3://bucket/a.zip has sha256 checksum")
    assert names(target.parent) == ["a.zip.sha256"]


def test_download_replaces_a_damaged_file(server, tmp_path):
    target = tmp_path / "a.zip"
    target.write_bytes(CONTENT[:50])
    download(f"{server.url}/good?download=1", target, SHA256.upper(), retries=0)
    assert target.read_bytes() == CONTENT
    assert names(tmp_path) == ["a.zip"]


def test_wrong_checksum_is_not_tried_again(server, tmp_path):
    message = refusal(download, f"{server.url}/good", tmp_path / "a.zip", "0" * 64)
    assert SHA256 in message and "0" * 64 in message and "the config" in message
    assert len(server.requests) == 1 and names(tmp_path) == []


def test_interrupted_download(server, tmp_path):
    message = refusal(download, f"{server.url}/short", tmp_path / "a.zip", retries=0)
    assert "interrupted" in message and "/short" in message
    assert names(tmp_path) == []


def test_interruption_is_overcome(server, tmp_path):
    download(f"{server.url}/flaky", tmp_path / "a.zip", SHA256, retries=1)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT and len(server.requests) == 2


def test_missing_file_on_the_server(server, tmp_path):
    message = refusal(download, f"{server.url}/nothing", tmp_path / "a.zip", retries=0)
    assert "404" in message and "/nothing" in message
    assert names(tmp_path) == []


def test_unreachable_server(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.zip"
    assert "no connection to" in refusal(download, url, tmp_path / "a.zip", retries=0)
    message = refusal(download, "http://nowhere.invalid/a.zip", tmp_path / "a.zip", retries=0)
    assert "no connection to nowhere.invalid" in message


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/a.zip", "a.zip", "http://"])
def test_other_addresses_are_refused(tmp_path, url):
    assert "not an http or https address" in refusal(download, url, tmp_path / "a.zip")


def zip_of(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def tar_of(path, *members):
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_unpack(tmp_path, make):
    archive = make(tmp_path / "archive", ("top/images/a.tif", b"abc"), ("top/b.txt", b""))
    unpack(archive, tmp_path / "raw")
    assert (tmp_path / "raw" / "top" / "images" / "a.tif").read_bytes() == b"abc"
    unpack(make(tmp_path / "archive", ("c", b"new")), tmp_path / "raw")
    assert names(tmp_path / "raw") == ["c"]
    assert names(tmp_path) == ["archive", "raw"]


def test_unpack_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("empty")
        archive.writestr("empty/a", b"1")
    unpack(tmp_path / "a.zip", tmp_path / "raw")
    assert (tmp_path / "raw" / "empty" / "a").read_bytes() == b"1"


@pytest.mark.parametrize("make", [zip_of, tar_of])
@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil", "c:evil"]
)
def test_refuses_to_write_outside(tmp_path, make, name):
    archive = make(tmp_path / "archive", ("harmless", b"1"), (name, b"2"))
    message = refusal(unpack, archive, tmp_path / "sub" / "raw")
    assert "not safe" in message and "evil" in message
    assert names(tmp_path / "sub") == [] and not (tmp_path / "evil").exists()


def test_refuses_links_and_devices(tmp_path):
    link = zipfile.ZipInfo("link")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    zip_of(tmp_path / "link.zip", (link, "/etc"))
    for name, kind in [("sym.tar", tarfile.SYMTYPE), ("hard.tar", tarfile.LNKTYPE),
                       ("fifo.tar", tarfile.FIFOTYPE)]:  # fmt: skip
        member = tarfile.TarInfo("link")
        member.type, member.linkname = kind, "/etc/passwd"
        tar_of(tmp_path / name, (member, b""))
    for name in ("link.zip", "sym.tar", "hard.tar", "fifo.tar"):
        assert "link or a device" in refusal(unpack, tmp_path / name, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_refuses_absurd_sizes(tmp_path):
    archive = zip_of(tmp_path / "a.zip", ("a", bytes(10_000)), ("b", bytes(10_000)))
    assert "would unpack to" in refusal(unpack, archive, tmp_path / "raw", max_bytes=19_999)
    assert names(tmp_path) == ["a.zip"]
    unpack(archive, tmp_path / "raw", max_bytes=20_000)


def test_lying_sizes_write_no_more_than_declared(tmp_path):
    archive = zip_of(tmp_path / "a.zip", ("a", bytes(10_000)))
    lying = archive.read_bytes().replace((10_000).to_bytes(4, "little"), (9).to_bytes(4, "little"))
    archive.write_bytes(lying)
    assert "cannot unpack archive" in refusal(unpack, archive, tmp_path / "raw", max_bytes=100)
    assert names(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_refuses_damaged_archives(tmp_path, make):
    archive = make(tmp_path / "archive", ("a", os.urandom(5000)))
    content = bytearray(archive.read_bytes())
    content[2000:2100] = bytes(100)
    archive.write_bytes(content)
    assert str(archive) in refusal(unpack, archive, tmp_path / "raw")
    archive.write_bytes(content[:1500])
    assert str(archive) in refusal(unpack, archive, tmp_path / "raw")
    archive.write_text("<html>sign in</html>")
    assert "neither a zip nor a tar" in refusal(unpack, archive, tmp_path / "raw")
    assert names(tmp_path) == ["archive"]


# --- hostile archives ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", ".", "a/" * 3000])
@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_names_that_no_file_can_have(tmp_path, make, name):
    """They are refused, or lose what cannot be; nothing else comes of them."""
    (tmp_path / "in").mkdir()
    archive = make(tmp_path / "in" / "archive", ("harmless", b"1"), (name, b"2"))
    try:
        unpack(archive, tmp_path / "raw")
    except InputError as error:
        assert str(error).isprintable() and len(str(error)) < 1000
    assert set(names(tmp_path)) <= {"in", "raw"}


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_names_that_are_odd_but_harmless(tmp_path, make):
    odd = ["a b", "-rf", "$(touch x)", "{input}", "a\nb", "é", "e\u0301", "%s", "A", "a", "<b>"]
    unpack(make(tmp_path / "archive", *((name, b"1") for name in odd)), tmp_path / "raw")
    assert names(tmp_path / "raw") == sorted(odd)
    assert names(tmp_path) == ["archive", "raw"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", [zip_of, tar_of])
@pytest.mark.parametrize("second", ["a", "./a", "a/b", "x/../a"])
def test_a_file_in_the_place_of_another(tmp_path, make, second):
    archive = make(tmp_path / "archive", ("a", b"1"), (second, b"2"))
    assert str(archive) in refusal(unpack, archive, tmp_path / "raw")
    assert names(tmp_path) == ["archive"]


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_bombs(tmp_path, make, monkeypatch):
    """What is a thousand times smaller than its content is refused before a byte is written."""
    archive = make(tmp_path / "archive", ("images/a.tif", bytes(10**6)))
    monkeypatch.setattr(module, "HARMLESS", 10**5)
    message = refusal(unpack, archive, tmp_path / "raw")
    assert "GiB" in message and "attack" in message
    assert names(tmp_path) == ["archive"]
    archive = make(tmp_path / "archive", ("a", os.urandom(10**5)), ("mask", bytes(10**6)))
    unpack(archive, tmp_path / "raw")


def test_bomb_of_members_that_share_their_content(tmp_path, monkeypatch):
    """Many entries of the directory of a zip file lead to the same compressed bytes."""
    path = zip_of(tmp_path / "a.zip", ("a", bytes(10**5)))
    content = path.read_bytes()
    start = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entry = content[start:end]
    entries = b"".join(entry[:46] + bytes([97 + n]) + entry[47:] for n in range(20))
    counts = (20).to_bytes(2, "little") * 2 + len(entries).to_bytes(4, "little")
    forged = content[:start] + entries + content[end : end + 8] + counts + content[end + 16 :]
    path.write_bytes(forged)
    assert len(zipfile.ZipFile(path).namelist()) == 20
    monkeypatch.setattr(module, "HARMLESS", 10**5)
    assert "attack" in refusal(unpack, path, tmp_path / "raw")


def test_archives_inside_are_files(tmp_path):
    inner = zip_of(tmp_path / "inner.zip", ("../../evil", bytes(10**6)))
    outer = zip_of(tmp_path / "a.zip", ("inner.zip", inner.read_bytes()))
    unpack(outer, tmp_path / "raw")
    assert (tmp_path / "raw" / "inner.zip").read_bytes() == inner.read_bytes()
    assert names(tmp_path / "raw") == ["inner.zip"]


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_too_many_members(tmp_path, make, monkeypatch):
    monkeypatch.setattr(module, "MAX_MEMBERS", 3)
    archive = make(tmp_path / "archive", *((f"{n}", b"") for n in range(4)))
    assert "or 3 files" in refusal(unpack, archive, tmp_path / "raw")


def forge_tar(path, offset, value):
    """Write a number into a header of an uncompressed tar file, and correct its checksum."""
    content = bytearray(path.read_bytes())
    start = offset // 512 * 512
    content[offset : offset + len(value)] = value
    content[start + 148 : start + 156] = b" " * 8
    content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])
    path.write_bytes(content)


def plain_tar(path, *members, form=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=form) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_tar_that_goes_backwards_does_not_go_in_circles(tmp_path):
    info = tarfile.TarInfo("a")
    path = plain_tar(tmp_path / "a.tar", (info, b"1" * 600))
    forge_tar(path, 124, b"\xff" * 10 + (2**16 - 1536).to_bytes(2, "big"))
    assert "member of -1536 bytes" in refusal(unpack, path, tmp_path / "raw")
    info.pax_headers = {"size": "-1536"}
    path = plain_tar(tmp_path / "b.tar", (info, b"1" * 600))
    assert "cannot unpack archive" in refusal(unpack, path, tmp_path / "raw")


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_tar_with_an_endless_name(tmp_path, form):
    """It would be read into memory, however large, out of a few compressed bytes."""
    info = tarfile.TarInfo("é" * 200)
    path = plain_tar(tmp_path / "a.tar", (tarfile.TarInfo("a"), b""), (info, b"1"), form=form)
    forge_tar(path, 512 + 124, b"77777777777\0")
    assert "header of 8589934591 bytes" in refusal(unpack, path, tmp_path / "raw")
    path = plain_tar(tmp_path / "a.tar", (info, b"1"), form=form)
    forge_tar(path, 124, b"77777777777\0")
    assert "neither a zip nor a tar" in refusal(unpack, path, tmp_path / "raw")


def test_tar_is_not_cut_off_at_a_damaged_header(tmp_path):
    path = plain_tar(tmp_path / "a.tar", *((tarfile.TarInfo(name), b"1") for name in "ab"))
    content = bytearray(path.read_bytes())
    content[1024 + 10] ^= 1
    path.write_bytes(content)
    assert "damaged header" in refusal(unpack, path, tmp_path / "raw")
    assert names(tmp_path) == ["a.tar"]


def test_a_full_disk_is_no_damage(tmp_path, monkeypatch):
    archive = zip_of(tmp_path / "a.zip", ("a", b"1"))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_extract", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(archive, tmp_path / "raw")
