"""Atomic writes, lock files, and reading of text files."""

import gzip
import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from minicap.utils.errors import UserError
from minicap.utils.files import exclusive, read_lines, read_text, replacing, write_text


def test_a_new_file_and_its_folder(tmp_path):
    path = tmp_path / "a/b/c.txt"
    write_text(path, "é\n")
    assert path.read_bytes() == b"\xc3\xa9\n" and list(path.parent.iterdir()) == [path]


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "x", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_links_permissions_and_special_files_are_kept(tmp_path):
    path, link = tmp_path / "x", tmp_path / "link"
    write_text(path, "old")
    path.chmod(0o600)
    link.symlink_to(path)
    write_text(link, "new")
    assert link.is_symlink() and path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.mkfifo(tmp_path / "pipe")
    for other in tmp_path / "pipe", tmp_path:
        with pytest.raises(UserError, match="this is not a regular file"):
            write_text(other, "")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="cannot write"):
        write_text(tmp_path / "loop", "")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_lone_surrogates_are_written_as_escapes(tmp_path):
    write_text(tmp_path / "x", json.dumps({"a": "\udce9é"}, ensure_ascii=False))
    assert json.loads((tmp_path / "x").read_bytes()) == {"a": "\udce9é"}


def test_the_old_file_is_whole_until_the_block_ends(tmp_path):
    path = tmp_path / "x"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new, half")
        assert path.read_text() == "old" and temporary.parent == path.parent
    assert path.read_text() == "new, half"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "x"
    write_text(path, "old")
    expected = UserError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected), replacing(path) as temporary:
        temporary.write_text("ne")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("function", ["Path.touch", "os.fsync", "os.replace"])
def test_the_old_file_stays_if_any_call_fails(tmp_path, monkeypatch, function):
    path = tmp_path / "x"
    write_text(path, "old")

    def fail(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(f"pathlib.{function}" if "Path" in function else function, fail)
    with pytest.raises(UserError, match="x: Input/output error; no existing file was changed"):
        write_text(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_it_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, r=real: (calls.append(n), r(*a))[1])
    write_text(tmp_path / "x", "new")
    assert calls == ["fsync", "replace"]


def test_a_folder_that_cannot_be_created(tmp_path):
    write_text(tmp_path / "file", "")
    with pytest.raises(UserError, match="cannot write") as caught:
        write_text(tmp_path / "file/x", "new")
    assert "\n" not in str(caught.value)


def test_killed_while_writing_leaves_the_old_file(tmp_path):
    """kill -9 in the middle of the block: no clean-up runs, and the old file is unchanged."""
    path = tmp_path / "x"
    write_text(path, "old")
    code = (
        "import sys, time; from pathlib import Path; from minicap.utils.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('new, half'); print('ready', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"


def test_errors_name_the_line(tmp_path):
    (tmp_path / "x").write_bytes(b"\n\na \xff\n")
    with pytest.raises(UserError, match="x, line 3: the list must be UTF-8 text"):
        read_text(tmp_path / "x", "list")
    with pytest.raises(UserError, match=r"y: cannot read the list \(No such file"):
        read_text(tmp_path / "y", "list")


def test_line_ends_of_every_system(tmp_path):
    (tmp_path / "x").write_bytes("a\r\nb\rc\nd\u2028\x0ce".encode())
    assert read_lines(tmp_path / "x", "list") == ["a", "b", "c", "d\u2028\x0ce"]


def test_no_other_thread_writes_with_open_permissions(tmp_path, monkeypatch):
    """To read the umask is to set it for the whole process, for a moment: it is never read."""
    monkeypatch.setattr(os, "umask", None)
    write_text(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "new"


def test_a_compressed_text_is_restored(tmp_path):
    write_text(tmp_path / "x.gz", "a\nä\n")
    assert (tmp_path / "x.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert read_lines(tmp_path / "x.gz", "text") == ["a", "ä", ""]


def test_a_gzipped_text_of_any_name_is_read(tmp_path):
    (tmp_path / "x.TXT").write_bytes(gzip.compress(b"a\nb"))
    assert read_lines(tmp_path / "x.TXT", "text") == ["a", "b"]


@pytest.mark.parametrize("content", [b"plain text", b"", b"\x1f\x8b\x08", "cut"])
def test_a_broken_gzip_file_is_one_line(tmp_path, content):
    path = tmp_path / "x.gz"
    write_text(path, "word " * 1000)
    path.write_bytes(path.read_bytes()[:-9] if content == "cut" else content)
    if content == b"":
        assert read_text(path, "text") == ""  # as in gzip
        return
    with pytest.raises(UserError, match="x.gz: damaged, or not a gzip file"):
        read_text(path, "text")


def test_a_gzip_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("minicap.utils.files.LARGEST_TEXT", 1000)
    write_text(tmp_path / "x.gz", "a" * 1001)
    with pytest.raises(UserError, match="would unpack to more than 1,000 bytes"):
        read_text(tmp_path / "x.gz", "text")


def hold(path, locked, release):
    with exclusive(path, "taken"):
        locked.set()
        release.wait(30)


def test_a_lock_keeps_a_second_process_out_and_leaves_nothing(tmp_path):
    """One line while another process holds it; free after that process ends or is killed."""
    path = tmp_path / "new" / ".lock"
    context = multiprocessing.get_context("spawn")
    for killed in False, True:
        locked, release = context.Event(), context.Event()
        other = context.Process(target=hold, args=(path, locked, release))
        other.start()
        assert locked.wait(30)
        with pytest.raises(UserError, match="^taken$"), exclusive(path, "taken"):
            raise AssertionError
        if killed:
            other.kill()
        else:  # set() would wait forever for a process that was killed while it waited
            release.set()
        other.join()
        with exclusive(path, "taken"):
            assert path.exists()
        assert not path.exists()


def test_a_lock_in_an_impossible_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"), exclusive(tmp_path / "file/x", "taken"):
        pass


def test_a_lock_is_free_again_after_an_error_in_its_block(tmp_path):
    path = tmp_path / ".lock"
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), exclusive(path, "taken"):
            raise ZeroDivisionError
        assert not path.exists()


def test_a_lock_file_is_removed_while_it_is_locked(tmp_path, monkeypatch):
    """If it was released first, a second process could lock it, lose its file to the removal, and
    a third process could lock a new file at the same path."""
    path, real, removed = tmp_path / ".lock", Path.unlink, []

    def unlink(self):
        with pytest.raises(Timeout):
            FileLock(self, timeout=0).acquire()
        removed.append(self)
        real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with exclusive(path, "taken"):
            pass
    assert removed == [path] and not path.exists()
