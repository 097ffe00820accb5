"""Orbax checkpoints: what was saved comes back, and anything else is refused by name."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.checkpoints import assert_same, parameters
from helpers.unusual import UNUSUAL as MODEL
from orbax.checkpoint.experimental import v1 as ocp

from stride_jax.checkpoints import checkpoint as checkpoints
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.run_store import RunStore
from stride_jax.checkpoints.store import save_model
from stride_jax.config import to_dict
from stride_jax.errors import InputError


def write(path: Path, params, metadata=None) -> Path:
    """A checkpoint directory with any tree and any metadata, written by Orbax itself."""
    described = {"model": to_dict(MODEL), "context_len": 8} if metadata is None else metadata
    ocp.save(path, {"params": params}, custom_metadata=described)
    return path


@pytest.mark.parametrize("context_len", [48, None])
def test_round_trip(context_len, tmp_path):
    """A trained model would come back changed, or with another config."""
    checkpoint = Checkpoint(MODEL, parameters(), context_len)
    checkpoints.save(tmp_path / "model", checkpoint)
    assert_same(checkpoints.load(tmp_path / "model"), checkpoint)
    assert_same(checkpoints.load(str(tmp_path / "model")), checkpoint)


def test_relative_paths_and_new_parents(tmp_path, monkeypatch):
    """`runs/x` from the command line would not work."""
    monkeypatch.chdir(tmp_path)
    checkpoint = Checkpoint(MODEL, parameters(), 8)
    checkpoints.save("deep/model", checkpoint)
    assert_same(checkpoints.load("deep/model"), checkpoint)


@pytest.mark.parametrize("kind", ["file", "empty directory", "checkpoint"])
def test_an_existing_path_is_refused(kind, tmp_path):
    """A trained model would be overwritten."""
    path, kept = tmp_path / "model", Checkpoint(MODEL, parameters(), 8)
    if kind == "file":
        path.write_text("precious")
    elif kind == "empty directory":
        path.mkdir()
    else:
        checkpoints.save(path, kept)
    with pytest.raises(InputError, match="exists"):
        checkpoints.save(path, Checkpoint(MODEL, parameters(1), 8))
    if kind == "file":
        assert path.read_text() == "precious"
    elif kind == "checkpoint":
        assert_same(checkpoints.load(path), kept)


def test_load_reads_what_orbax_wrote(tmp_path):
    """The doctored checkpoints below would fail for another reason than their misfit."""
    params = parameters()
    assert_same(checkpoints.load(write(tmp_path / "ok", params)), Checkpoint(MODEL, params, 8))


@pytest.mark.parametrize("problem", ["missing", "unexpected", "shape", "whole block", "all"])
def test_each_misfit_is_named(problem, tmp_path):
    """A checkpoint of another model would be loaded in part, with fresh numbers in the gaps."""
    params, named = parameters(), []
    if problem in ("missing", "all"):
        del params["block_1"]["attention"]["query"]["bias"]
        named.append("missing block_1/attention/query/bias")
    if problem in ("unexpected", "all"):
        params["block_0"]["gate"] = {"kernel": np.ones((2, 2), np.float32)}
        named.append("unexpected block_0/gate/kernel")
    if problem in ("shape", "all"):
        params["head_logvar"]["kernel"] = np.ones((16, 5), np.float32)
        named.append("head_logvar/kernel has shape (16, 5), expected (16, 8)")
    if problem == "whole block":
        del params["block_1"]
        named += [f"missing block_1/norm{i}/{part}" for i in (1, 2) for part in ("scale", "bias")]
    path = write(tmp_path / "odd", params)
    with pytest.raises(InputError) as caught:
        checkpoints.load(path)
    for part in [*named, str(path)]:
        assert part in str(caught.value)
    assert "embedding" not in str(caught.value)


def test_values_that_are_not_those_written_are_refused(tmp_path):
    """A bit that a disk has turned over would be a weight 1e38 times too large."""
    params = parameters()
    described = {"model": to_dict(MODEL), "context_len": 8}
    whole = checkpoints.with_checksum({"params": params}, described)
    written = Checkpoint(MODEL, params, 8)
    assert_same(checkpoints.load(write(tmp_path / "whole", params, whole)), written)
    bits = params["embedding"]["kernel"].view(np.int32)
    for bit in (0, 20, 30):
        bits[1, 2] ^= 1 << bit
        with pytest.raises(InputError, match="not what was written"):
            checkpoints.load(write(tmp_path / f"bit {bit}", params, whole))
        bits[1, 2] ^= 1 << bit
    with pytest.raises(InputError, match="not what was written"):
        checkpoints.load(write(tmp_path / "length", params, {**whole, "context_len": 16}))
    assert_same(checkpoints.load(write(tmp_path / "older", params)), written)


def test_another_tree_is_refused(tmp_path):
    """A checkpoint of something else would end in a traceback."""
    path = tmp_path / "odd"
    described = {"model": to_dict(MODEL), "context_len": None}
    ocp.save(path, {"weights": np.ones(3, np.float32)}, custom_metadata=described)
    with pytest.raises(InputError, match="missing embedding/kernel"):
        checkpoints.load(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"note": "mine"}, "config"),
        ({"model": {**to_dict(MODEL), "d_modle": 3}, "context_len": 8}, "d_modle"),
        ({"model": {**to_dict(MODEL), "d_model": "16"}, "context_len": 8}, "d_model"),
        ({"model": {**to_dict(MODEL), "num_layers": 0}, "context_len": 8}, "num_layers"),
        ({"model": 3, "context_len": 8}, None),
    ],
)
def test_a_strange_config_is_refused(metadata, message, tmp_path):
    """A checkpoint of a later version would be read with wrong dimensions or a traceback."""
    path = write(tmp_path / "odd", parameters(), metadata)
    with pytest.raises(InputError, match=message):
        checkpoints.load(path)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    """A typing error in a path would end in a traceback."""
    with pytest.raises(InputError, match="absent"):
        checkpoints.load(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file"):
        checkpoints.load(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        checkpoints.load(tmp_path / "empty")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="other"):
        checkpoints.load(tmp_path / "other")


# Orbax leaves broken coroutines and a closed event loop behind when a read fails, so this runs in
# a process of its own. It prints a JSON line for each file of the checkpoint and each cut.
TRUNCATE = """
import json, shutil, sys
from pathlib import Path
import jax, numpy as np
from stride_jax.checkpoints import checkpoint as checkpoints
from stride_jax.errors import InputError

whole = Path(sys.argv[1])
expected = checkpoints.load(whole)
for i, file in enumerate(sorted(p for p in whole.rglob("*") if p.is_file())):
    raw = file.read_bytes()
    for keep in {0, len(raw) // 2, max(0, len(raw) - 1)} - {len(raw)}:
        cut = whole.parent / f"cut_{i}_{keep}"
        shutil.copytree(whole, cut)
        (cut / file.relative_to(whole)).write_bytes(raw[:keep])
        try:
            found = checkpoints.load(cut)
            pairs = zip(
                jax.tree.leaves(found.params), jax.tree.leaves(expected.params), strict=True
            )
            same = all(np.array_equal(a, b) for a, b in pairs)
            result = "same" if same and found[0::2] == expected[0::2] else "changed"
        except InputError as error:
            result = "InputError" if str(cut) in str(error) else f"not named: {error}"
        except Exception as error:
            result = repr(error)
        print(json.dumps([str(file.relative_to(whole)), keep, result]), flush=True)
"""


@pytest.mark.slow
def test_a_truncated_file_is_an_input_error(tmp_path):
    """A half-copied checkpoint would be taken for whole, or end in a traceback.

    Files that Orbax does not need to read (per-process copies, markers) may be damaged unseen, as
    long as what is loaded is the same.
    """
    checkpoints.save(tmp_path / "whole", Checkpoint(MODEL, parameters(), 8))
    run = subprocess.run(
        [sys.executable, "-c", TRUNCATE, str(tmp_path / "whole")],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("[")]
    files = [p for p in (tmp_path / "whole").rglob("*") if p.is_file() and p.stat().st_size]
    assert {name for name, *_ in lines} == {str(p.relative_to(tmp_path / "whole")) for p in files}
    assert [line for line in lines if line[2] not in ("same", "InputError")] == []
    # the array data itself is one of the files whose damage is seen
    assert any("/d/" in line[0] and line[2] == "InputError" for line in lines)


def test_a_run_directory_stands_for_its_best_checkpoint(tmp_path):
    """`--target runs/x` would read the last parameters, or nothing."""
    best, state = Checkpoint(MODEL, parameters(), 8), {"params": parameters(1), "step": np.array(7)}
    store = RunStore(tmp_path / "run")
    assert store.last_config() is None
    store.save_best(3, Checkpoint(MODEL, parameters(2), 8))
    store.save_best(5, best)
    store.save_last(7, state, {"seed": 3})
    store.close()
    for path in (tmp_path / "run", tmp_path / "run" / "best", tmp_path / "run" / "best" / "5"):
        assert_same(checkpoints.load(path), best)

    again = RunStore(tmp_path / "run")
    assert again.last_config() == {"seed": 3}
    found = again.restore_last(state)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="last"):
        again.restore_last({"params": parameters(1), "step": np.array(7), "more": np.ones(3)})
    again.close()


def test_host_copies_survive_donation():
    """An asynchronous save would write the numbers of a later step."""
    tree = {"a": np.ones(3, np.float32)}
    copy = checkpoints.host_copy(tree)
    tree["a"][:] = 0
    np.testing.assert_array_equal(copy["a"], np.ones(3))


def test_the_last_of_several_steps_is_read_by_its_number(tmp_path):
    """Step 9 stands behind step 10 in a list of names, and has older parameters."""
    for step in (9, 10):
        checkpoints.save(tmp_path / "best" / str(step), Checkpoint(MODEL, parameters(step), 8))
    assert_same(checkpoints.load(tmp_path), Checkpoint(MODEL, parameters(10), 8))


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_weight_that_float16_does_not_hold_is_named(tmp_path):
    """It would be stored as infinity, and every forecast be NaN."""
    large = jax.tree.map(lambda x: np.full_like(x, 1e5), parameters())
    path = tmp_path / "model.npz"
    with pytest.raises(InputError, match="does not fit in float16"):
        save_model(path, Checkpoint(MODEL, large, 8), half=True)
    assert not path.exists()
