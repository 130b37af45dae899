"""Downloads from a local server that fails in every way servers and connections do."""

import hashlib
import socket
import threading
from collections.abc import Callable

import pytest

from minicap.utils import downloads as module
from minicap.utils.downloads import fetch, is_whole
from minicap.utils.errors import UserError
from minicap.utils.files import exclusive
from tests.loopback import FILE, OTHER, Server, good, status

CHECKSUM = "sha256:" + hashlib.sha256(FILE).hexdigest()


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "PAUSE", 0.001)
    servers = []

    def start(*answers: Callable) -> Server:
        servers.append(Server(*answers))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def left(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


def test_a_file_arrives_whole_and_alone(tmp_path, serve, capfd):
    server = serve(good())
    path = tmp_path / "a" / "file.bin"
    assert fetch(server.url, path, CHECKSUM, len(FILE), "test file") == path
    assert path.read_bytes() == FILE
    assert left(path.parent) == ["file.bin"]
    bar = capfd.readouterr().err
    assert "test file" in bar and "300k/300k" in bar and "00:00" in bar


def test_a_file_that_exists_is_not_requested(tmp_path, serve):
    server = serve(status(500))
    path = tmp_path / "file.bin"
    path.write_bytes(FILE)
    for size in len(FILE), None:
        assert fetch(server.url, path, CHECKSUM, size) == path
    assert not server.asked


def test_two_downloads_of_one_file_do_not_meet(tmp_path, serve):
    path = tmp_path / "file.bin"
    server = serve(good())
    refused = pytest.raises(UserError, match="file.bin: another process is downloading it")
    with exclusive(tmp_path / ".file.bin.lock", ""), refused:
        fetch(server.url, path, CHECKSUM)
    assert not server.asked and left(tmp_path) == []
    fetch(server.url, path, CHECKSUM)
    assert left(tmp_path) == ["file.bin"]


def test_a_damaged_file_is_fetched_again(tmp_path, serve):
    path = tmp_path / "file.bin"
    path.write_bytes(FILE[:-1])
    fetch(serve(good()).url, path, CHECKSUM)
    assert path.read_bytes() == FILE


def test_a_broken_connection_resumes(tmp_path, serve, capfd):
    server = serve(good(cut=100_000), good(cut=50_000), good())
    fetch(server.url, tmp_path / "file.bin", CHECKSUM, len(FILE))
    assert (tmp_path / "file.bin").read_bytes() == FILE
    assert [asked.get("Range") for asked in server.asked] == [
        None, "bytes=100000-", "bytes=150000-"
    ]  # fmt: skip
    assert server.sent == len(FILE)  # no byte twice
    assert "the connection broke after 150,000 of 300,000 bytes; retrying" in capfd.readouterr().err


def test_another_run_resumes(tmp_path, serve):
    broken = serve(good(cut=120_000), status(503))
    with pytest.raises(UserError, match="503.*120,000 bytes are kept"):
        fetch(broken.url, tmp_path / "file.bin", CHECKSUM)
    assert (tmp_path / "file.bin.part").stat().st_size == 120_000
    server = serve(good())
    fetch(server.url, tmp_path / "file.bin", CHECKSUM)
    assert server.asked[0]["Range"] == "bytes=120000-" and server.sent == 180_000
    assert (tmp_path / "file.bin").read_bytes() == FILE
    assert left(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("size", [len(FILE), None])
def test_only_the_last_step_was_missing(tmp_path, serve, size):
    """Killed between the last byte and the rename."""
    (tmp_path / "file.bin.part").write_bytes(FILE)
    server = serve(good())
    fetch(server.url, tmp_path / "file.bin", CHECKSUM, size)
    assert (tmp_path / "file.bin").read_bytes() == FILE and server.sent == 0
    assert left(tmp_path) == ["file.bin"]


def test_a_part_longer_than_the_file_is_deleted(tmp_path, serve):
    (tmp_path / "file.bin.part").write_bytes(FILE + b"more")
    fetch(serve(good()).url, tmp_path / "file.bin", CHECKSUM)
    assert (tmp_path / "file.bin").read_bytes() == FILE


def test_ctrl_c_keeps_the_bytes_so_far(tmp_path, serve, monkeypatch):
    server = serve(good(cut=70_000))

    def sleep(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        fetch(server.url, tmp_path / "file.bin", CHECKSUM)
    assert (tmp_path / "file.bin.part").read_bytes() == FILE[:70_000]


def ignores_ranges(cut=None):
    def answer(request):
        request.head(200, Content_Length=len(FILE))
        request.body(FILE[:cut])

    return answer


def test_a_server_that_ignores_ranges(tmp_path, serve):
    server = serve(ignores_ranges(100_000), ignores_ranges())
    fetch(server.url, tmp_path / "file.bin", CHECKSUM)
    assert server.asked[1]["Range"] == "bytes=100000-"
    assert (tmp_path / "file.bin").read_bytes() == FILE


def test_a_file_that_changes_between_two_tries_is_not_mixed(tmp_path, serve):
    server = serve(good(cut=100_000), good(OTHER))
    with pytest.raises(UserError, match="not the file that was expected"):
        fetch(server.url, tmp_path / "file.bin", CHECKSUM, len(FILE))
    assert left(tmp_path) == []


def test_the_wrong_part_is_refused(tmp_path, serve):
    def from_elsewhere(request):
        place = f"bytes 5-{len(FILE) - 1}/{len(FILE)}"
        request.head(206, Content_Range=place, Content_Length=len(FILE) - 5)
        request.body(FILE[5:])

    def nonsense(request):
        request.head(206, Content_Range="bytes some", Content_Length=len(FILE))
        request.body(FILE)

    server = serve(good(cut=100_000), from_elsewhere, nonsense, good())
    fetch(server.url, tmp_path / "file.bin", CHECKSUM)
    assert (tmp_path / "file.bin").read_bytes() == FILE


def test_a_wrong_checksum_leaves_nothing(tmp_path, serve):
    with pytest.raises(UserError, match="model: .*not the file that was expected") as error:
        fetch(serve(good(OTHER)).url, tmp_path / "file.bin", CHECKSUM, what="model")
    assert "\n" not in str(error.value)
    assert left(tmp_path) == []


@pytest.mark.parametrize("length", [len(FILE) - 1, len(FILE) + 1])
def test_a_file_of_another_length_is_refused_before_the_download(tmp_path, serve, length):
    server = serve(good())
    with pytest.raises(UserError, match=f"has 300,000 bytes instead of {length:,}"):
        fetch(server.url, tmp_path / "file.bin", CHECKSUM, length)
    assert left(tmp_path) == []


def endless(request):
    request.head(200)
    for _ in range(10_000):
        request.body(b"x" * 10_000)


@pytest.mark.parametrize("known", [{"size": len(FILE)}, {"max_size": 300_000}])
def test_an_endless_server_is_cut_off(tmp_path, serve, known):
    server = serve(endless)
    with pytest.raises(UserError, match="more than the 300,000 bytes expected"):
        fetch(server.url, tmp_path / "file.bin", CHECKSUM, **known)
    assert left(tmp_path) == []


def test_a_length_that_is_never_reached(tmp_path, serve, capfd):
    def lies(request):
        request.head(200, Content_Length=len(FILE) + 1)
        request.body(FILE)

    def has_no_more(request):
        request.head(206, Content_Range=f"bytes 300000-300000/{len(FILE) + 1}")

    server = serve(lies, has_no_more)
    with pytest.raises(UserError, match="broke after 300,000 of 300,001 bytes.*by hand"):
        fetch(server.url, tmp_path / "file.bin", CHECKSUM)
    assert len(server.asked) == 1 + module.TRIES - 1
    assert left(tmp_path) == ["file.bin.part"]


def test_a_server_that_stalls(tmp_path, serve, capfd):
    resume = threading.Event()

    def stalls(request):
        request.head(200, Content_Length=len(FILE))
        request.body(FILE[:1000])
        resume.wait(10)

    server = serve(stalls, good())
    fetch(server.url, tmp_path / "file.bin", CHECKSUM, timeout=0.2)
    resume.set()
    assert (tmp_path / "file.bin").read_bytes() == FILE
    assert "no answer; retrying" in capfd.readouterr().err
    assert server.asked[1]["Range"] == "bytes=1000-"


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_missing_file_is_reported_at_once(tmp_path, serve, code):
    server = serve(status(code))
    with pytest.raises(UserError, match=f"{code} .*by hand and put it at") as error:
        fetch(server.url, tmp_path / "file.bin", CHECKSUM)
    assert server.url in str(error.value) and str(tmp_path / "file.bin") in str(error.value)
    assert "\n" not in str(error.value) and len(server.asked) == 1


def test_a_busy_server_is_retried(tmp_path, serve):
    server = serve(status(503), status(429), good())
    fetch(server.url, tmp_path / "file.bin", CHECKSUM)
    assert len(server.asked) == 3


def test_no_network_is_reported_at_once(tmp_path, serve, monkeypatch):
    def nobody(*words, **more):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{free.getsockname()[1]}/file.bin"
    with pytest.raises(UserError, match=f"refused.*download {refused} by hand and put it at"):
        fetch(refused, tmp_path / "file.bin", CHECKSUM)
    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    with pytest.raises(UserError, match="Temporary failure in name resolution.*by hand"):
        fetch("http://example.invalid/file.bin", tmp_path / "file.bin", CHECKSUM)
    assert left(tmp_path) == []


def test_a_full_disk(tmp_path, serve, monkeypatch):
    def full(path, *words, **more):
        raise OSError(28, "No space left on device")

    server = serve(good())
    monkeypatch.setattr(module.Path, "open", full)
    with pytest.raises(UserError, match="cannot write .*: No space left on device"):
        fetch(server.url, tmp_path / "file.bin", CHECKSUM)
    assert len(server.asked) == 1  # another try would not help


def test_other_addresses_are_not_opened(tmp_path):
    with pytest.raises(ValueError, match="file:"):
        fetch("file:///etc/hostname", tmp_path / "file.bin", CHECKSUM)


def test_whole_by_length_and_either_checksum(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    md5 = "md5:900150983cd24fb0d6963f7d28e17f72"
    assert is_whole(path, md5) and is_whole(path, md5, 3) and not is_whole(path, md5, 4)
    assert not is_whole(path, "sha256:" + "0" * 64)
