"""`minicap serve` as a process: its port, slow clients, and how it stops."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from minicap import serve
from minicap.server import run
from minicap.utils.errors import UserError
from tests.server.conftest import noise
from tests.test_caption import save_encoder
from tests.tiny import model


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"127.0.0.1, port {port}: Address already in use; ch"):
            run.listen("127.0.0.1", port)


def test_local_hosts():
    assert all(map(run.is_local, ("127.0.0.1", "localhost", "::1", "127.1.2.3")))
    assert not any(map(run.is_local, ("0.0.0.0", "192.168.0.7", "::", "lab.example")))


def test_a_warning_for_other_hosts(capsys):
    serve.report("0.0.0.0", 8000, "scenes", local=False)
    output = capsys.readouterr()
    assert "warning: everybody who reaches 0.0.0.0 can use the lab" in output.err
    serve.report("::1", 8000, "scenes", local=True)
    output = capsys.readouterr()
    assert "http://[::1]:8000" in output.out and not output.err


def test_a_port_out_of_range():
    with pytest.raises(UserError, match="--port must be from 0 to 65535"):
        serve.main(["--port", "70000"])


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(UserError, match="pip install -e"):
        serve.main([])


@pytest.fixture
def server(tmp_path):
    encoder = save_encoder(tmp_path / "encoder.onnx")
    model().save(tmp_path / "model.safetensors")
    code = (
        "from minicap.server import run; run.HEADER_SECONDS = 0.5\n"
        "from minicap import serve; from minicap.utils import command_line\n"
        "command_line.run(serve.main)"
    )
    options = [f"--model={tmp_path / 'model.safetensors'}", f"--encoder={encoder}", "--port=0"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    lines = [process.stdout.readline() for _ in range(2)]
    port = int(lines[1].split("127.0.0.1:")[1].split()[0])
    yield process, port
    process.kill()
    process.communicate()


def test_requests_and_ctrl_c(server):
    process, port = server
    address = f"http://127.0.0.1:{port}/api/caption"
    with urllib.request.urlopen(address, data=noise()) as response:
        assert json.load(response)["captions"][0]["tokens"]
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and output == "stopped\n" and "Traceback" not in errors


def test_a_client_that_sends_nothing_is_disconnected(server):
    _, port = server
    for start in b"", b"POST /api/caption HTTP/1.1\r\nX: ":
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(start)
            began = time.monotonic()
            assert client.recv(10) == b"", "closed without an answer"
            assert time.monotonic() - began < 10


def test_a_second_request_that_stays_incomplete_is_disconnected_too(server):
    _, port = server
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(9) == b"HTTP/1.1 "
        client.sendall(b"GET /health HT")
        while client.recv(4096):
            pass


def test_a_stop_lets_a_request_end(server):
    """SIGTERM while a photo arrives: the rest is still read, and the answer sent."""
    process, port = server
    body = noise()
    head = f"POST /api/caption HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(head.encode() + body[:100])
        time.sleep(0.3)
        process.terminate()
        time.sleep(0.3)
        client.sendall(body[100:])
        assert client.recv(15) == b"HTTP/1.1 200 OK"
    assert process.wait(30) in (0, -signal.SIGTERM)
