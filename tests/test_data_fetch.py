"""The fetcher against a server of our own: whole, cut short, altered, refused, slow, absent."""

import contextlib
import http.server
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from flaxdigits.data import raw_chinese_mnist, raw_mnist
from flaxdigits.data.fetch import TIMEOUTS, FetchError, Timeouts, fetch
from flaxdigits.errors import FlaxdigitsError

CONTENT = bytes(range(256)) * 2000
QUICK = Timeouts(connect=2, read=0.3, total=20)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files` under the behavior that the first folder of the path names."""

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        behavior, name = self.path.lstrip("/").split("/", 1)
        if behavior == "refused":
            self.send_error(403)
            return
        content = self.server.files[name]
        self.send_response(200)
        garbled = behavior == "garbled"
        self.send_header("Content-Length", "some bytes" if garbled else str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has given up, as it should
            getattr(self, behavior)(content)

    def whole(self, content: bytes) -> None:
        self.wfile.write(content)

    garbled = whole

    def cut(self, content: bytes) -> None:
        self.wfile.write(content[:-1000])

    def altered(self, content: bytes) -> None:
        self.wfile.write(content[:-1] + bytes([content[-1] ^ 1]))

    def stalling(self, content: bytes) -> None:
        self.wfile.write(content[:1000])
        self.server.closing.wait(30)

    def dripping(self, content: bytes) -> None:
        for byte in content:
            self.wfile.write(bytes([byte]))
            time.sleep(0.02)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.requests, server.closing = {"file": CONTENT}, [], threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        yield taken.getsockname()[1]


def check(path: Path) -> None:
    if path.read_bytes() != CONTENT:
        raise FlaxdigitsError("not the file meant")


@pytest.mark.parametrize("behavior", ["whole", "garbled"])
def test_a_complete_file_is_downloaded(behavior, server, tmp_path):
    fetch([f"{server.url}/{behavior}/file"], tmp_path / "new" / "file", check, QUICK)
    assert (tmp_path / "new" / "file").read_bytes() == CONTENT
    assert os.listdir(tmp_path / "new") == ["file"]


@pytest.mark.parametrize("behavior, message", [
    ("refused", "HTTP 403"),
    ("cut", "incomplete: 511000 of 512000 bytes"),
    ("altered", "not the file meant"),
    ("stalling", "no answer in time"),
])
def test_a_failed_download_is_reported_and_leaves_no_file(server, tmp_path, behavior, message):
    address = f"{server.url}/{behavior}/file"
    with pytest.raises(FetchError, match=message) as error:
        fetch([address], tmp_path / "file", check, QUICK)
    assert address in str(error.value) and "\n" not in str(error.value)
    assert os.listdir(tmp_path) == []


def test_a_download_that_never_finishes_is_stopped(server, tmp_path):
    with pytest.raises(FetchError, match=r"not finished after 0\.5 s"):
        fetch([f"{server.url}/dripping/file"], tmp_path / "file", check,
              Timeouts(connect=2, read=5, total=0.5))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("first", ["refused", "cut", "altered", "stalling"])
def test_the_next_address_is_tried(server, tmp_path, first):
    fetch([f"{server.url}/{first}/file", f"{server.url}/whole/file"],
          tmp_path / "file", check, QUICK)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["file"]


def test_no_network(closed_port, tmp_path):
    addresses = [f"http://127.0.0.1:{closed_port}/file", "https://no-such-host.invalid/file"]
    with pytest.raises(FetchError) as error:
        fetch(addresses, tmp_path / "file", check, QUICK)
    assert "refused" in str(error.value) and "no-such-host.invalid" in str(error.value)
    assert os.listdir(tmp_path) == []


@pytest.fixture
def silent_port():
    """Accepts no connection and refuses none, as where a firewall drops what comes."""
    with socket.socket() as listening, contextlib.ExitStack() as stack:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        for _ in range(4):  # the queue is full after one or two
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        yield address[1]


@pytest.mark.slow
def test_a_missing_network_is_noticed(silent_port, tmp_path):
    assert TIMEOUTS.connect < 10  # over all addresses
    with pytest.raises(FetchError, match="no answer in time"):
        fetch([f"http://127.0.0.1:{silent_port}/{name}" for name in "abc"], tmp_path / "file",
              check)


def test_a_host_that_is_down_does_not_hide_one_that_is_up(server, closed_port, tmp_path):
    fetch([f"http://127.0.0.1:{closed_port}/file", f"{server.url}/whole/file"],
          tmp_path / "file", check, QUICK)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_proxy_is_what_must_answer(server, closed_port, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(FetchError, match="refused"):
        fetch([f"{server.url}/whole/file"], tmp_path / "file", check, QUICK)
    assert server.requests == []


def test_part_of_a_killed_download_is_replaced(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"left over")
    fetch([f"{server.url}/whole/file"], tmp_path / "file", check, QUICK)
    assert os.listdir(tmp_path) == ["file"]


def test_a_fifo_in_place_of_a_part_is_replaced(server, tmp_path):
    os.mkfifo(tmp_path / "file.part")
    os.mkfifo(tmp_path / "file")
    fetch([f"{server.url}/whole/file"], tmp_path / "file", check, QUICK)
    assert (tmp_path / "file").is_file() and os.listdir(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_written_is_not_a_network_error(server, tmp_path):
    (tmp_path / "occupied").write_bytes(b"")
    with pytest.raises(FlaxdigitsError, match="cannot be written") as error:
        fetch([f"{server.url}/whole/file"], tmp_path / "occupied" / "file", check, QUICK)
    assert not isinstance(error.value, FetchError)


def test_real_mnist(server, raw_data_dir, tmp_path):
    for name in (f"{name}.gz" for name in raw_mnist.SHA256):
        server.files[name] = (raw_data_dir / "mnist" / name).read_bytes()
    addresses = [f"{server.url}/altered/", f"{server.url}/whole/"]
    raw_mnist.fetch_mnist(tmp_path, addresses)
    assert raw_mnist.read_mnist(tmp_path).images.shape == (70_000, 28, 28)

    server.requests.clear()
    labels = tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:-1])
    raw_mnist.fetch_mnist(tmp_path, addresses[1:])
    assert server.requests == [f"/whole/{labels.name}"]  # only the damaged one, and it is whole
    raw_mnist.read_mnist(tmp_path)


def test_real_chinese_mnist(server, raw_data_dir, tmp_path):
    archive = raw_chinese_mnist.ARCHIVE
    server.files[archive] = (raw_data_dir / "chinese_mnist" / archive).read_bytes()
    addresses = [f"{server.url}/{way}/{archive}" for way in ("cut", "whole")]
    raw_chinese_mnist.fetch_chinese_mnist(tmp_path, addresses)
    assert os.listdir(tmp_path / "chinese_mnist") == [archive]

    server.requests.clear()
    raw_chinese_mnist.fetch_chinese_mnist(tmp_path, addresses)
    assert server.requests == []
