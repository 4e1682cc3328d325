"""The process itself, over real sockets: slow and huge clients, and an end that answers what is in flight."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from web.conftest import encoded

SERVER = """
import sys
sys.path[:0] = {paths!r}
from headclip.web import server
from headclip.web.app import AppOptions, create_app
from headclip.web.limits import Limits
from inference.fake_detector import FakeDetector
server._HEADER_SECONDS = 0.5
server._STALL_SECONDS = 2.0
listening = server.open_socket("127.0.0.1", 0)
detector = FakeDetector(batch_size=2, seconds={seconds})
app = create_app(AppOptions(detector=detector, limits=Limits(seconds={patience}, max_bytes=1_000_000)))
port = listening.getsockname()[1]
server.run_server(app, listening, grace=20, ready=lambda: print(port, flush=True))
print("ended", flush=True)
"""


@pytest.fixture
def start():
    """A function that runs a server in a process of its own and gives (process, port)."""
    started = []

    def run(seconds=0.0, patience=20.0):
        paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "src")]
        script = SERVER.format(paths=paths, seconds=seconds, patience=patience)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
        started.append(process)
        return process, int(process.stdout.readline())

    yield run
    for process in started:
        process.kill()
        process.wait(10)
        process.stdout.close()


def post(port, body, timeout=30):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/predict", data=body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def raw(port, head, body=b"", pause=0.0):
    """Send bytes as they are and return the first line of the answer; b"" when the server just closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head)
        time.sleep(pause)
        try:
            connection.sendall(body)
            return connection.recv(4096).split(b"\r\n")[0]
        except (ConnectionResetError, BrokenPipeError):
            return b""


def test_slow_and_huge_clients_are_refused_and_the_server_lives(start):
    process, port = start(patience=1.0)
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    assert raw(port, head + b"Content-Length: 200000000\r\n\r\n").startswith(b"HTTP/1.1 413")
    chunk = b"100000\r\n" + bytes(0x100000) + b"\r\n"
    chunked = raw(port, head + b"Transfer-Encoding: chunked\r\n\r\n", chunk * 20)
    assert chunked.startswith(b"HTTP/1.1 413") or chunked == b""  # the answer may be lost with the connection
    assert raw(port, head + b"Content-Length: 1000\r\n\r\nabc").startswith(b"HTTP/1.1 408")
    assert raw(port, b"POST /v1/pre", pause=1.5) == b""  # a head that does not come
    assert raw(port, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert post(port, encoded())[0] == 200
    assert process.poll() is None


def test_a_body_of_200_mb_is_refused_wherever_it_goes(start):
    process, port = start()
    for path in ("/v1/predict", "/live/images", "/runs/x/marks/0123456789abcdef", "/login", "/nowhere"):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n".encode()
        first = raw(port, head + b"Content-Length: 209715200\r\n\r\n--b\r\n")
        assert first.startswith(b"HTTP/1.1 413"), path
    assert post(port, encoded())[0] == 200
    assert process.poll() is None


def test_a_body_that_trickles_is_408_at_the_time_that_one_that_stops_is(start):
    process, port = start(patience=1.0)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        answer = b""
        connection.settimeout(0.1)
        for _ in range(300):  # a byte each 0.1 s: it never stops for long
            try:
                connection.sendall(b"x")
                answer = connection.recv(4096)
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                pass
            break
    assert answer.startswith(b"HTTP/1.1 408")
    assert post(port, encoded())[0] == 200
    assert process.poll() is None


def sockets_of(process):
    """How many sockets a process holds, its connections among them."""
    count = 0
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            count += str(link.readlink()).startswith("socket:")
    return count


def wait_for_sockets(process, count):
    """Until a process holds no more than that many, for a minute at most."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and sockets_of(process) > count:
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts a process's connections in /proc")
def test_who_does_not_take_the_answer_is_dropped(start):
    """Maps make answers of megabytes, which would stay in memory as long as somebody cares to wait."""
    process, port = start()
    buffer = io.BytesIO()
    Image.effect_noise((1000, 1000), 5).quantize(4).save(buffer, "PNG")
    body = buffer.getvalue()
    idle = sockets_of(process)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", port))
        head = f"POST /v1/predict?map=npy HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        answer = connection.recv(1000)
        assert answer.startswith(b"HTTP/1.1 200")
        length = int(re.search(rb"content-length: (\d+)", answer).group(1))
        wait_for_sockets(process, idle)
        received = len(answer)
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(1_000_000):
                received += len(part)
        assert received < length  # what the system had taken over may still come, and then it ends
    assert post(port, encoded())[0] == 200
    assert process.poll() is None


def test_a_slow_reader_who_goes_on_gets_everything(start):
    _, port = start()
    pixels = np.full((700, 1000, 3), 90, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/predict?map=npy", data=buffer.getvalue())
    parts = []
    with urllib.request.urlopen(request, timeout=30) as answer:
        while part := answer.read(100_000):
            parts.append(part)
            time.sleep(0.1)  # in all longer than the patience with somebody who takes nothing
    data = json.loads(b"".join(parts))["results"][0]["map"]["data"]
    assert np.load(io.BytesIO(base64.b64decode(data))).shape == (700, 1000)


def test_the_end_answers_what_is_in_flight(start):
    process, port = start(seconds=0.4)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(post(port, encoded()))) for _ in range(5)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/ready", timeout=10) as answer:
            if json.loads(answer.read())["waiting"] >= 2:
                break
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(30)
    assert [status for status, _ in answers] == [200] * 5
    process.wait(20)
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        post(port, encoded(), timeout=5)


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_status_tells_an_orderly_end_from_an_interruption(run, number, status):
    # a shell that started the tests in the background has told all below it to ignore SIGINT
    code = "import signal; signal.signal(2, signal.default_int_handler); from headclip.cli.app import main; main()"
    command = [sys.executable, "-c", code, "serve", run, "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command, **pipes) as process:
        for line in process.stdout:
            if "Ctrl-C stops it" in line:
                break
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in errors) == (status, False)
