"""The downloader against a real server on this host, well-behaved and not."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stride_jax.data import download, fetch, load_series
from stride_jax.data.download import CATALOG, Dataset
from stride_jax.errors import InputError

BODY = b"date,a\n" + b"".join(b"2020-01-%02d,%d\n" % (day, day) for day in range(1, 32))
BODY = BODY.replace(b"15,15", b"15,?")
SUM = hashlib.sha256(BODY).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves BODY the way `mode` says and counts the requests."""

    mode = "good"
    hits = 0
    daemon_threads = True
    released: threading.Event

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/tiny.csv"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.hits += 1
        mode = self.server.mode
        if mode == "absent":
            self.send_error(404)
            return
        if mode == "stalled":
            self.server.released.wait(20)
            return
        body = BODY.replace(b"31", b"30") if mode == "corrupted" else BODY
        self.send_response(200)
        if mode != "unsized":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if mode in ("interrupted", "unsized") else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.released = threading.Event()
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        entry = Dataset("tiny", "sub/tiny.csv", server.url, SUM, 31, 1, "1 day", "none")
        monkeypatch.setitem(CATALOG, "tiny", entry)
        # A proxy set on this host must not get between the test and its server.
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("STRIDE_JAX_DATA", str(tmp_path / "default"))
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


def files(root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]


def test_good(server: Server, tmp_path: Path) -> None:
    """A plain download would fail, or leave its temporary file behind."""
    path = fetch("tiny", root=tmp_path)
    assert path == tmp_path / "sub" / "tiny.csv"
    assert path.read_bytes() == BODY
    assert files(tmp_path) == ["sub/tiny.csv"]


def test_progress(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A long download would show no progress, or show it although it was switched off."""
    fetch("tiny", root=tmp_path / "quiet", progress=False)
    assert "%|" not in capsys.readouterr().err
    fetch("tiny", root=tmp_path / "loud")
    assert "100%|" in capsys.readouterr().err


def test_present(server: Server, tmp_path: Path) -> None:
    """A file at hand would be downloaded again, so that work without network fails."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "tiny.csv").write_bytes(BODY)
    assert fetch("tiny", root=tmp_path).read_bytes() == BODY
    assert server.hits == 0


def test_wrong_file_is_kept(server: Server, tmp_path: Path) -> None:
    """A user's own file under that name would be overwritten or used as the benchmark."""
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "tiny.csv"
    path.write_bytes(b"mine")
    with pytest.raises(InputError) as caught:
        fetch("tiny", root=tmp_path)
    found = hashlib.sha256(b"mine").hexdigest()
    for word in (str(path), SUM, found, "move it away"):
        assert word in str(caught.value)
    assert path.read_bytes() == b"mine"
    assert server.hits == 0


@pytest.mark.parametrize(
    ("mode", "word"),
    [
        ("corrupted", "corrupted"),
        ("interrupted", "try again"),
        ("unsized", "corrupted"),
        ("absent", "404"),
        ("stalled", "timed out"),
    ],
)
def test_failure_then_success(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, word: str
) -> None:
    """A failed download would pass for a good one, block the next try, or leave debris."""
    monkeypatch.setattr(download, "_TIMEOUT", (1.0, 1.0))
    server.mode = mode
    with pytest.raises(InputError) as caught:
        fetch("tiny", root=tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (word, server.url, str(tmp_path / "sub" / "tiny.csv"), SUM):
        assert part in message
    assert files(tmp_path) == []
    server.mode = "good"
    assert fetch("tiny", root=tmp_path).read_bytes() == BODY
    assert files(tmp_path) == ["sub/tiny.csv"]


def test_timeout_is_finite() -> None:
    """A server that never answers would hang a training for ever."""
    assert all(0 < seconds < 300 for seconds in download._TIMEOUT)


def test_refused(server: Server, tmp_path: Path) -> None:
    """Without network the user would see a traceback, and not where to put the file."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    url = f"http://127.0.0.1:{port}/tiny.csv"
    with pytest.raises(InputError) as caught:
        fetch("tiny", root=tmp_path, url=url)
    for part in (url, str(tmp_path / "sub" / "tiny.csv"), SUM, "by hand"):
        assert part in str(caught.value)
    assert files(tmp_path) == []


def test_other_home(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror given by the user would be ignored."""
    entry = Dataset("tiny", "tiny.csv", "http://127.0.0.1:9/none", SUM, 31, 1, "1 day", "none")
    monkeypatch.setitem(CATALOG, "tiny", entry)
    assert fetch("tiny", root=tmp_path, url=server.url).read_bytes() == BODY


def test_bad_url(server: Server, tmp_path: Path) -> None:
    """A mistyped mirror would be reported as a corrupted download."""
    with pytest.raises(InputError, match=r"no-scheme.*failed"):
        fetch("tiny", root=tmp_path, url="no-scheme")


def test_unwritable_root(server: Server, tmp_path: Path) -> None:
    """A data directory that cannot be made would give a traceback."""
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match="STRIDE_JAX_DATA"):
        fetch("tiny", root=tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "a file"


def test_unknown_name() -> None:
    """A misspelt name would give a bare KeyError."""
    with pytest.raises(InputError, match=r"'ETTh9'.*ETTh1"):
        fetch("ETTh9")


def test_data_dir(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment variable would be ignored and the home directory filled."""
    monkeypatch.setenv("STRIDE_JAX_DATA", str(tmp_path / "here"))
    assert fetch("tiny") == tmp_path / "here" / "sub" / "tiny.csv"
    monkeypatch.setenv("STRIDE_JAX_DATA", "")
    assert download.data_dir().name == "stride_jax"


def test_load_series_by_name(server: Server, tmp_path: Path) -> None:
    """A catalogue name in a configuration would not give the downloaded series."""
    series = load_series("tiny", columns=["a"], missing="interpolate", root=tmp_path)
    assert series.names == ("a",)
    assert series.values[:, 0].tolist() == list(range(1, 32))
    assert files(tmp_path) == ["sub/tiny.csv"]


def test_catalog() -> None:
    """A wrong entry would send users to another file or refuse the right one."""
    assert list(CATALOG) == [
        *("ETTh1", "ETTh2", "ETTm1", "ETTm2"),
        *("weather", "exchange_rate", "illness"),
    ]
    for name, entry in CATALOG.items():
        assert entry.name == name
        assert entry.url.startswith("https://")
        assert entry.url.endswith("/" + entry.filename)
        assert len(bytes.fromhex(entry.sha256)) == 32
        assert (entry.rows, entry.num_vars) > (900, 6)
    assert len({entry.sha256 for entry in CATALOG.values()}) == len(CATALOG)
