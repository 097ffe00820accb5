"""Fetches the public benchmark series, each checked by its sha256 before it is used.

From a shell: `stride-jax download NAME [NAME ...] [--root DIR]`, or `--list`.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

from stride_jax.errors import InputError

_TIMEOUT = (10.0, 60.0)  # seconds to connect, and from one piece to the next
_ETT = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small"
_MIRROR = "https://huggingface.co/datasets/thuml/Time-Series-Library/resolve/main"


@dataclass(frozen=True)
class Dataset:
    """One public series and how to know that a copy of it is the right one.

    Attributes:
        name: What `fetch` and the configuration call it.
        filename: Where it lies under the data directory, in the layout that is usual for these
            benchmarks, so that a directory filled by other tools works as it is.
        url: Its public home.
        sha256: The sum of its bytes, 64 hexadecimal digits.
        rows: Number of time steps.
        num_vars: Number of variables.
        step: Time from row to row.
        licence: The terms its owners state.
    """

    name: str
    filename: str
    url: str
    sha256: str
    rows: int
    num_vars: int
    step: str
    licence: str


def _ett(name: str, rows: int, step: str, sha256: str) -> Dataset:
    filename, url = f"ETT-small/{name}.csv", f"{_ETT}/{name}.csv"
    return Dataset(name, filename, url, sha256, rows, 7, step, "CC BY-ND 4.0")


def _mirrored(
    name: str, filename: str, size: tuple[int, int], step: str, licence: str, sha256: str
) -> Dataset:
    return Dataset(name, filename, f"{_MIRROR}/{filename}", sha256, *size, step, licence)


CATALOG: dict[str, Dataset] = {
    entry.name: entry
    for entry in (
        _ett(
            "ETTh1",
            17420,
            "1 h",
            "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
        ),
        _ett(
            "ETTh2",
            17420,
            "1 h",
            "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b",
        ),
        _ett(
            "ETTm1",
            69680,
            "15 min",
            "6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e",
        ),
        _ett(
            "ETTm2",
            69680,
            "15 min",
            "db973ca252c6410a30d0469b13d696cf919648d0f3fd588c60f03fdbdbadd1fd",
        ),
        _mirrored(
            "weather",
            "weather/weather.csv",
            (52696, 21),
            "10 min",
            "none stated (MPI-BGC Jena)",
            "34ee981d07313e51da2a50bb600072c8ae4a69cb4b0651f4cb93a069d7a2ba63",
        ),
        _mirrored(
            "exchange_rate",
            "exchange_rate/exchange_rate.csv",
            (7588, 8),
            "1 day",
            "none stated",
            "48b4d9d3d508f5104162e85b9a6042e3557fde11aa9f2944eba8c0d0efc89842",
        ),
        _mirrored(
            "illness",
            "illness/national_illness.csv",
            (966, 7),
            "1 week",
            "none stated (US CDC)",
            "8594cecb98c6f2f9dc014eca11c4d5d1e38ad5ce6ed0592d4abe65b146fce395",
        ),
    )
}


def data_dir() -> Path:
    """The directory for fetched files: `STRIDE_JAX_DATA`, or else the user's cache."""
    directory = os.environ.get("STRIDE_JAX_DATA")
    return Path(directory).expanduser() if directory else Path(pooch.os_cache("stride_jax"))


def fetch(
    name: str, *, root: Path | None = None, url: str | None = None, progress: bool = True
) -> Path:
    """Returns the file of a catalogue series, downloading it if it is not there yet.

    Args:
        name: A name in `CATALOG`.
        root: The data directory; None takes `data_dir()`.
        url: Another home of the same bytes; None takes the one in the catalogue.
        progress: Whether to draw a progress bar on stderr.

    Returns:
        The path of a file whose sha256 is the catalogue's.

    Raises:
        InputError: The name is unknown, a file with another sum is in the way (it is left as it
            is), or the download failed or was corrupted (nothing is left behind).
    """
    if name not in CATALOG:
        near = difflib.get_close_matches(name, CATALOG, n=3, cutoff=0.4) or list(CATALOG)
        raise InputError(f"there is no data set {name!r}; did you mean one of {near}?")
    entry = CATALOG[name]
    url = url or entry.url
    path = (data_dir() if root is None else Path(root).expanduser()) / entry.filename
    by_hand = f"or put the file at {path} by hand; its sha256 must be {entry.sha256}"
    try:
        if path.exists():
            _check_sum(path, entry.sha256)
            return path
        # Writes to a temporary file beside the final name, and renames it once the sum is right.
        pooch.retrieve(
            url,
            known_hash=f"sha256:{entry.sha256}",
            fname=path.name,
            path=path.parent,
            downloader=partial(_stream, progress=progress),
        )
    except InputError:
        raise
    except requests.RequestException as error:
        raise InputError(f"{url}: the download failed ({error}); try again, {by_hand}") from error
    except ValueError as error:  # pooch's word for a wrong sum
        raise InputError(
            f"{url}: the download is corrupted, its sha256 is not the right one, and it was "
            f"thrown away; try again, {by_hand}"
        ) from error
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read or written ({error}); choose another directory with root= "
            "or STRIDE_JAX_DATA"
        ) from error
    return path


def _stream(url: str, output: str, _: object, *, progress: bool) -> None:
    """Writes what is at the URL to a file; called by pooch, whose downloader leaks its socket."""
    with requests.get(url, stream=True, timeout=_TIMEOUT) as response:
        response.raise_for_status()
        size = int(response.headers.get("Content-Length", 0)) or None
        with (
            open(output, "wb") as file,
            tqdm(total=size, unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            for piece in response.iter_content(2**16):
                file.write(piece)
                # The bytes on the wire: pieces are longer when the server packs them.
                bar.update(response.raw.tell() - bar.n)


def _check_sum(path: Path, expected: str) -> None:
    """Refuses a file with another sum; it is the user's, so it is not replaced."""
    digest = pooch.file_hash(str(path))
    if digest != expected:
        raise InputError(
            f"{path}: is there already, but its sha256 is {digest} and must be {expected}; move it "
            "away to have it downloaded anew"
        )
