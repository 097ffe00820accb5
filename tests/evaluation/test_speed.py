"""Times, acceptance by place and memory by batch size."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stride_jax.checkpoints.store import find_model
from stride_jax.data.config import DataConfig
from stride_jax.data.splits import load_data
from stride_jax.errors import InputError
from stride_jax.evaluation import speed, tables
from stride_jax.evaluation.config import EvaluateConfig, SpeedConfig
from stride_jax.evaluation.methods import alone, make_pairs
from stride_jax.evaluation.scoring import Method

BASE = EvaluateConfig(
    data=DataConfig(source="beijing_weather", context_len=504, variables="separate"),
    both_baselines=True,
    horizons=(48,),
    num_draft=1,
    rules=("mean",),
    sigma=0.5,
    tolerance=1e6,
    stride=143,
)
CONFIG = SpeedConfig(base=BASE, batches=(1, 2), repeats=2)


@pytest.fixture(scope="module")
def results():
    """The shipped pair, two patches ahead."""
    return speed.measure(CONFIG, load_data(BASE.data), find_model(BASE.target))


def rows_of(results, **wanted):
    """The rows with these fields."""
    return [r for r in results["rows"] if all(r[k] == v for k, v in wanted.items())]


@pytest.mark.slow
def test_every_decoder_has_a_row_at_every_batch(results):
    """A batch size that was asked for would be missing."""
    each = [("autoregressive", "cached"), ("autoregressive", "window"), ("draft", "cached")]
    expected = [*each, ("speculative", "cached"), *each]  # mean paths, then sample paths
    for batch in CONFIG.batches:
        found = [(r["method"], r["process"]) for r in rows_of(results, batch=batch)]
        assert found == expected
    json.dumps(results)


@pytest.mark.slow
def test_counts_are_those_of_the_decodes(results):
    """With an endless tolerance K = 1 of two patches takes one pass, all of it accepted."""
    for row in rows_of(results, method="speculative"):
        assert (row["acceptance"], row["acceptance_by_place"]) == (1.0, [1.0])
        assert (row["target_passes"], row["patches_per_round"]) == (1.0, 2.0)
    for row in rows_of(results, method="autoregressive"):
        assert (row["target_passes"], row["acceptance"]) == (2.0, None)


@pytest.mark.slow
def test_speedups_compare_within_a_batch_and_a_kind(results):
    """A batch of 8 would be compared with a single series."""
    for row in results["rows"]:
        same = rows_of(results, batch=row["batch"], kind=row["kind"], method="autoregressive")
        own = next(r for r in same if r["process"] == row["process"])
        assert row["speedup"] == own["seconds"] / row["seconds"]
        least = min(r["seconds"] for r in same)
        assert row["speedup_over_fastest"] == least / row["seconds"]


@pytest.mark.slow
def test_memory_holds_the_parameters_and_grows_with_the_batch(results):
    """Parameters baked into the program, or a batch that does not count, would be missed."""
    target = find_model(BASE.target)
    weights = sum(x.nbytes for x in jax.tree.leaves(target.params))
    one, two = (
        rows_of(results, batch=b, method="autoregressive", process="cached", kind="point")[0]
        for b in CONFIG.batches
    )
    assert weights < one["memory_bytes"] < two["memory_bytes"]


def test_memory_counts_inputs_results_and_scratch():
    """The arrays of a decode that is nothing but them, to the byte."""
    pair = make_pairs(dataclasses.replace(BASE, draft="last-value"), find_model(BASE.target), 4)
    process = next(iter(pair.values())).target
    method = Method("autoregressive", False, "cached", None, None, None, alone(process, 0.0, 48))
    context = jnp.asarray(np.random.default_rng(0).normal(size=(1, 504, 1)), jnp.float32)
    weights = sum(x.nbytes for x in jax.tree.leaves(find_model(BASE.target).params))
    assert speed.memory(method, context) >= weights + context.nbytes + 48 * 4


@pytest.mark.slow
def test_the_table_shows_both_kinds_and_every_batch(results):
    """A kind of path or a batch would not be shown."""
    text = tables.make_table({**results, "config": json.loads(json.dumps(results["config"]))})
    assert "**Mean paths**" in text
    assert "**Sample paths**" in text
    lines = [line for line in text.splitlines() if line.startswith(("| 1 ", "| 2 "))]
    assert len(lines) == len(results["rows"])


@pytest.mark.parametrize("values", [{"batches": ()}, {"batches": (0,)}, {"repeats": 0}])
def test_impossible_sizes_are_refused(values):
    """A crash inside the first decode, or a median of nothing."""
    with pytest.raises(InputError):
        SpeedConfig(**values)
