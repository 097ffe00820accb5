"""Checkpoints where jax may hold 64 bits: the same files, the same dtypes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.checkpoints import assert_same, parameters
from helpers.toy_runs import steps, toy_run, toy_start
from helpers.unusual import UNUSUAL as MODEL
from orbax.checkpoint.experimental import v1 as ocp

from stride_jax.checkpoints import checkpoint as checkpoints
from stride_jax.checkpoints.checkpoint import Checkpoint

WIDE = """
import json, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import jax
from helpers.toy_runs import toy_run, toy_start
from helpers.unusual import UNUSUAL
from stride_jax.checkpoints import checkpoint as checkpoints
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.models.timer_xl import init_params

assert jax.config.jax_enable_x64
out = Path({out!r})
checkpoints.save(out / "again", checkpoints.load(out / "model"))
checkpoints.save(out / "new", Checkpoint(UNUSUAL, init_params(jax.random.key(0), UNUSUAL), 8))
dtypes = lambda state: [str(leaf.dtype) for leaf in jax.tree.leaves(state)]
before = dtypes(toy_start(out / "run", resume=True))
toy_run(out / "run", resume=True)
print(json.dumps([before, dtypes(toy_start(out / "run", resume=True))]))
"""


@pytest.mark.slow
def test_checkpoints_do_not_depend_on_the_flag(tmp_path: Path) -> None:
    """An undamaged checkpoint would be called damaged, and no run could be resumed."""
    model = Checkpoint(MODEL, parameters(), 8)
    checkpoints.save(tmp_path / "model", model)
    dtypes = [str(leaf.dtype) for leaf in jax.tree.leaves(toy_start(tmp_path / "run"))]
    code = WIDE.format(tests=str(Path(__file__).parents[1]), out=str(tmp_path))
    env = {**os.environ, "JAX_ENABLE_X64": "1"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [dtypes, dtypes]
    assert_same(checkpoints.load(tmp_path / "again"), model)
    new = checkpoints.load(tmp_path / "new").params
    assert {leaf.dtype for leaf in jax.tree.leaves(new)} == {np.dtype(np.float32)}
    assert steps(tmp_path / "run", "last") == ["9"]
    toy_run(tmp_path / "run", resume=True)  # what it wrote is read without the flag


def test_leaves_of_64_bits_are_verified_as_they_were_written(tmp_path: Path) -> None:
    """A checkpoint that was written with the flag on would be called damaged with it off."""
    params = parameters()
    params["embedding"]["bias"] = params["embedding"]["bias"].astype(np.float64)
    tree = {"params": params}
    described = checkpoints.describe(Checkpoint(MODEL, params, 8))
    ocp.save(tmp_path / "wide", tree, custom_metadata=checkpoints.with_checksum(tree, described))
    assert_same(checkpoints.load(tmp_path / "wide"), Checkpoint(MODEL, parameters(), 8))
