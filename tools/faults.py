"""What a training run and its files survive: kills, Ctrl-C, full disks, damaged files.

`python tools/faults.py --out docs/results/faults.json` (a quarter of an hour on 2 CPU cores). Every
fault is a real one: the program `train.py` is run, killed, starved or fed a damaged file, and
resumed; what counts is that everything in the last checkpoint is the same to the bit, or that the
message says what is wrong.
"""

import argparse
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint.experimental import v1 as ocp

from stride_jax.checkpoints.checkpoint import load
from stride_jax.checkpoints.store import load_model, save_model
from stride_jax.data.download import fetch
from stride_jax.errors import InputError
from stride_jax.evaluation.results import write_rows

ROOT = Path(__file__).parent.parent
SMALL = [
    *("--data.context_len", "96", "--data.variables", "separate"),
    *("--model.patch_len", "24", "--model.d_model", "32", "--model.num_heads", "2"),
    *("--model.d_ff", "64", "--optim.batch_size", "32", "--optim.epochs", "3"),
    *("--optim.steps_per_epoch", "40", "--run.save_every", "7", "--run.log_every", "10"),
]
TRIES = 20


def start(out: Path, *more: str, limit: int | None = None) -> subprocess.Popen[str]:
    """`train.py` in a process of its own, which may write files of at most `limit` KiB."""
    command = [sys.executable, str(ROOT / "train.py"), *SMALL, "--run.out", str(out), *more]
    if limit is not None:  # a write past the limit fails, as on a full disk
        command = ["bash", "-c", f'trap "" XFSZ; ulimit -f {limit}; exec "$@"', "bash", *command]
    return subprocess.Popen(
        command,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "STRIDE_JAX_CACHE": str(out.parent / "xla"),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status, and what the program said last: its own line, or else any."""
    _, said = process.communicate()
    lines = said.replace("\r", "\n").splitlines()
    lines = [line for line in lines if "step/s" not in line and not line.startswith("seed ")]
    own = [line for line in lines if line.startswith(("error: ", "stopped"))]
    return process.returncode, (own or lines or [""])[-1].strip()


def equal(a: Any, b: Any) -> bool:
    """Whether two trees agree to the bit."""
    leaves = jax.tree.leaves(a), jax.tree.leaves(b)
    alike = jax.tree.structure(a) == jax.tree.structure(b)
    return alike and all(np.array_equal(x, y) for x, y in zip(*leaves, strict=True))


def kept(run: Path) -> list[Path]:
    """The finished checkpoints in `last`."""
    return [path for path in (run / "last").glob("*") if path.name.isdigit()]


def same(a: Path, b: Path) -> bool:
    """Whether two runs agree to the bit: the best parameters, and all of the last checkpoint."""
    ends = [max(kept(run), key=lambda path: int(path.name)) for run in (a, b)]
    return (
        ends[0].name == ends[1].name
        and equal(load(a).params, load(b).params)
        and equal(*[ocp.load(path) for path in ends])  # parameters, optimizer, counters
    )


def stopped(whole: Path, work: Path, length: float, sig: int) -> tuple[bool, str]:
    """A run stopped by a signal at a random point and resumed (anew if nothing was kept)."""
    out = work / "run"
    while True:
        shutil.rmtree(out, ignore_errors=True)
        process = start(out)
        time.sleep(random.uniform(0.2, 0.98) * length)
        if process.poll() is None:  # a run that was through before does not count
            break
        finish(process)
    process.send_signal(sig)
    status, said = finish(process)
    if sig == signal.SIGINT and status not in (0, 130):
        return False, said
    status, again = finish(start(out, *(("--resume",) if kept(out) else ())))
    return status == 0 and same(whole, out), said or again


def full_disk(whole: Path, work: Path) -> tuple[bool, str]:
    """Files may not grow: the checkpoint fails with a message, the run goes on afterwards."""
    out = work / "run"
    shutil.rmtree(out, ignore_errors=True)
    process = start(out)
    while not kept(out) and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    status, said = finish(start(out, "--resume", limit=random.choice([1, 4, 16])))
    if status != 2 or not said.startswith("error: "):
        return False, said
    status, _ = finish(start(out, "--resume"))
    return status == 0 and same(whole, out), said


def damaged(
    copy: Path, read: Callable[[], Any], truth: Any, rng: random.Random
) -> tuple[bool, str]:
    """One file cut short or with a bit turned over: an InputError, or nothing has changed."""
    files = [path for path in sorted(copy.rglob("*")) if path.is_file() and path.stat().st_size]
    chosen = rng.choice(files)
    content = bytearray(chosen.read_bytes())
    if rng.random() < 0.3:
        del content[rng.randrange(len(content)) :]
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    chosen.write_bytes(bytes(content))
    try:
        found = read()
    except InputError as error:
        return True, str(error)
    well = equal(found, truth)
    return well, "read as it was" if well else f"{chosen.name}: other values, no message"


def damaged_checkpoint(whole: Path, work: Path, rng: random.Random) -> tuple[bool, str]:
    """A damaged Orbax checkpoint."""
    copy, truth = work / "copy", load(whole).params
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(whole / "best", copy)
    return damaged(copy, lambda: load(copy).params, truth, rng)


def damaged_file(whole: Path, work: Path, rng: random.Random) -> tuple[bool, str]:
    """A damaged .safetensors file."""
    copy, checkpoint = work / "file", load(whole)
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    save_model(copy / "model.safetensors", checkpoint)
    found = load_model(copy / "model.safetensors").params
    return damaged(copy, lambda: load_model(copy / "model.safetensors").params, found, rng)


def two_runs(whole: Path, work: Path) -> tuple[bool, str]:
    """A second run in the directory of one that is running."""
    out = work / "run"
    shutil.rmtree(out, ignore_errors=True)
    first = start(out)
    while not (out / "lock").exists() and first.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    status, said = finish(start(out))
    done, _ = finish(first)
    return status == 2 and done == 0 and same(whole, out), said


def refused(work: Path) -> tuple[bool, str]:
    """`--resume` where only empty temporary folders lie: one line, and nothing after it."""
    out = work / "refused"
    for name in ("last", "best"):
        (out / name / "7.orbax-checkpoint-tmp").mkdir(parents=True, exist_ok=True)
    process = start(out, "--resume")
    _, said = process.communicate()
    lines = [line for line in said.splitlines() if not line.startswith("seed ")]
    well = process.returncode == 2 and len(lines) == 1 and lines[0].startswith("error: ")
    return well, said if not well else lines[0]


def damaged_download(work: Path) -> tuple[bool, str]:
    """A data file that is not what it should be."""
    (work / "ETT-small").mkdir(exist_ok=True)
    for path in (work / "ETTh1.csv", work / "ETT-small" / "ETTh1.csv"):
        path.write_text("date,OT\n")
    try:
        fetch("ETTh1", root=work)
    except InputError as error:
        return "sha256" in str(error), str(error)
    return False, "taken as it is"


def brief(said: str, directory: str) -> str:
    """The first 200 characters, on one line, without the temporary directory."""
    return " ".join(said.replace(directory, "").split())[:200]


def repeat(name: str, times: int, once: Callable[[], tuple[bool, str]]) -> dict[str, Any]:
    """A row: how often it was tried, how often all was well, and the last message."""
    found = []
    for number in range(times):
        found.append(once())
        print(f"{name} {number + 1}/{times}: {found[-1]}", flush=True)
    bad = [said for well, said in found if not well]
    row = {"fault": name, "tried": times, "well": times - len(bad)}
    return {**row, "message": (bad or [said for _, said in found])[-1]}


def main() -> int:
    """Runs every fault; 1 if one of them did harm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=TRIES)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    random.seed(0)
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        whole = work / "whole"
        for out in (whole, work / "again"):  # the second one finds its programs compiled
            clock = time.perf_counter()
            status, said = finish(start(out))
            length = time.perf_counter() - clock
            assert status == 0, said
        stop = functools.partial(stopped, whole, work, length)
        few = max(1, args.tries // 5)
        rows = [
            repeat("kill -9", args.tries, lambda: stop(signal.SIGKILL)),
            repeat("Ctrl-C", few, lambda: stop(signal.SIGINT)),
            repeat("full disk", few, lambda: full_disk(whole, work)),
            repeat("two runs in one directory", 1, lambda: two_runs(whole, work)),
            repeat("refused --resume", few, lambda: refused(work)),
            repeat("damaged checkpoint", args.tries, lambda: damaged_checkpoint(whole, work, rng)),
            repeat("damaged .safetensors", args.tries, lambda: damaged_file(whole, work, rng)),
            repeat("damaged download", 1, lambda: damaged_download(work)),
        ]
    if args.out:
        write_rows(args.out, [{**row, "message": brief(row["message"], name)} for row in rows])
    return 0 if all(row["well"] == row["tried"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
