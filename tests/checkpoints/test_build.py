"""Targets and drafts by name."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.models import forward, params_of
from helpers.toys import draft_steps

from stride_jax.checkpoints import build as pairs
from stride_jax.checkpoints import checkpoint as checkpoints
from stride_jax.checkpoints import store
from stride_jax.checkpoints.build import (
    load_pair,
    make_pair,
    make_target,
)
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.covariances import load_covariance
from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.drafts import as_draft, propose
from stride_jax.decoding.naive_drafts import last_value_draft, nearest_draft, seasonal_draft
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import TimerXL

MODEL = TimerXLConfig(patch_len=4, d_model=16, num_heads=2, d_ff=16, num_layers=2, dropout=0.0)
CAUSAL = dataclasses.replace(MODEL, instance_norm="causal", variable_stride=0)


def made(model: TimerXLConfig, context_len: int | None = 16) -> Checkpoint:
    """A new model."""
    return Checkpoint(model, params_of(model), context_len)


def several(model: TimerXLConfig) -> TimerXLConfig:
    """A small model of three patches at once."""
    return dataclasses.replace(model.scaled(0.5), output_patches=3)


TARGET, CAUSAL_TARGET = made(MODEL), made(CAUSAL)
SMALL, MULTI = made(MODEL.scaled(0.5), 8), made(several(MODEL), 12)
BATCH = jax.random.normal(jax.random.key(7), (3, 16, 2))


def proposals(draft: object, context: jax.Array, count: int = 3) -> np.ndarray:
    """The means of `count` proposals after the context, `[count, P, C]`."""
    return np.asarray(means(as_draft(draft), context, count))


@functools.partial(jax.jit, static_argnums=2)
def means(draft: object, context: jax.Array, count: int) -> jax.Array:
    """`proposals`, compiled once for drafts that differ in their numbers alone."""
    memory = draft.prepare(context)
    noise = jnp.zeros((count, draft.patch_len, context.shape[1]))
    state = draft.start(memory, count + 1)
    return propose(draft, memory, state, noise, noise[0] + 1, count, learned=False)[0].mean


@pytest.mark.parametrize(
    ("name", "draft"),
    [
        ("last-value", last_value_draft(4)),
        ("nearest", nearest_draft(4)),
        ("seasonal:6", seasonal_draft(4, 6)),
    ],
)
@pytest.mark.parametrize("kind", ["window", "cached"])
def test_a_draft_without_training_is_found_by_its_name(name: str, draft: object, kind: str) -> None:
    """Another draft would propose than the one that was asked for."""
    pair = make_pair(TARGET, name, kind, 16, 2)
    assert type(pair.draft) is type(draft)
    np.testing.assert_array_equal(proposals(pair.draft, BATCH[0]), proposals(draft, BATCH[0]))


def test_the_seasonal_draft_takes_its_period_from_the_name() -> None:
    """A season of another length would be repeated."""
    context = np.asarray(BATCH[0])
    found = proposals(make_pair(TARGET, "seasonal:6", "window", 16, 2).draft, BATCH[0])
    expected = np.stack([context[10 + step % 6] for step in range(12)])
    np.testing.assert_array_equal(found.reshape(12, 2), expected)


@pytest.mark.parametrize("kind", ["window", "cached"])
def test_layer_skip_is_the_target_s_own_first_layers(kind: str) -> None:
    """The draft that costs no training would be a model of other weights."""
    pair = make_pair(TARGET, "layer-skip:1", kind, 16, 2)
    config, params = pairs.first_layers(MODEL, TARGET.params, 1)
    assert config == dataclasses.replace(MODEL, num_layers=1)
    assert set(params) == {"embedding", "block_0", "norm", "head"}
    for name, value in params.items():
        jax.tree.map(np.testing.assert_array_equal, value, TARGET.params[name])
    model = TimerXLConfig(4, 16, 2, 16, num_layers=1)
    own = {name: TARGET.params[name] for name in ("embedding", "block_0", "norm", "head")}
    expected = forward(model, BATCH[:1], own)[0, -4:]
    np.testing.assert_allclose(proposals(pair.draft, BATCH[0])[0], expected, atol=1e-5)
    assert isinstance(pair.draft, type(pair.target))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["window", "cached"])
def test_a_shorter_context_keeps_the_trained_positions(kind: str) -> None:
    """A model that numbers its tokens by the input's length would see offsets it never learned."""
    model = dataclasses.replace(MODEL, instance_norm="causal", variable_stride=None)
    target = Checkpoint(model, TARGET.params, 16)
    short = make_pair(target, "last-value", kind, 8, 2).target
    memory = short.prepare(BATCH[0, :8])
    distributions, _ = short.verify(memory, short.start(memory, 1), jnp.zeros((0, 4, 2)))
    pinned = TimerXL(dataclasses.replace(model, variable_stride=4))
    expected = pinned.apply({"params": TARGET.params}, BATCH[:1, :8])[0, -4:]
    np.testing.assert_allclose(distributions.mean[0], expected, atol=1e-5)


@pytest.mark.parametrize("count", [0, 2, 3])
def test_layer_skip_needs_fewer_layers_than_the_target(count: int) -> None:
    """A draft as large as the target would only cost time, and say nothing about it."""
    with pytest.raises(InputError, match=f"layer-skip:{count} needs a target of more layers"):
        make_pair(TARGET, f"layer-skip:{count}", "window", 16, 2)


def test_a_draft_is_found_by_its_path(tmp_path: Path) -> None:
    """A trained draft could not be named on the command line."""
    store.save_model(tmp_path / "small.npz", SMALL)
    checkpoints.save(tmp_path / "multi", MULTI)
    expected = make_pair(TARGET, SMALL, "window", 16, 2)
    found = make_pair(TARGET, str(tmp_path / "small.npz"), "window", 16, 2)
    ours, theirs = (proposals(pair.draft, BATCH[0]) for pair in (found, expected))
    np.testing.assert_array_equal(ours, theirs)
    assert found.draft.context_len == 8
    found = make_pair(TARGET, str(tmp_path / "multi"), "window", 16, 2)
    assert not hasattr(found.draft, "verify")  # proposes several patches at once
    out = forward(MULTI.model, BATCH[:1, -12:], MULTI.params, last_only=True)
    ours = proposals(found.draft, BATCH[0])
    np.testing.assert_allclose(ours.reshape(12, 2), out[0], atol=1e-5)


def test_every_draft_sees_the_context_it_was_trained_on() -> None:
    """A draft trained on 8 steps must see 8, not the target's 16."""
    pair = make_pair(TARGET, SMALL, "window", 16, 1)
    assert pair.draft.prepare(jnp.zeros((16, 1))).shape == (8, 1)
    assert pair.target.prepare(jnp.zeros((16, 1))).shape == (16, 1)
    multi = make_pair(TARGET, MULTI, "window", 16, 1)
    assert multi.draft.prepare(jnp.zeros((16, 1))).shape == (12, 1)
    unknown = make_pair(TARGET, SMALL._replace(context_len=None), "window", 16, 1)
    assert unknown.draft.prepare(jnp.zeros((16, 1))).shape == (16, 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("seasonal", "needs a whole number"),
        ("seasonal:", "needs a whole number"),
        ("seasonal:x", "needs a whole number"),
        ("seasonal:-3", "needs a whole number"),
        ("seasonal:1.5", "needs a whole number"),
        ("seasonal:0", "period must be at least 1"),
        ("layer-skip", "needs a whole number"),
        ("layer-skip:one", "needs a whole number"),
        ("layer_skip:1", "no checkpoint 'layer_skip:1'"),
        ("no/such/place", "no checkpoint 'no/such/place'"),
        ("", "checkpoint"),
    ],
)
def test_a_malformed_name_says_what_is_wrong(name: str, message: str) -> None:
    """A typing mistake would end in a traceback, or in the rows of another draft."""
    with pytest.raises(InputError, match=message):
        make_pair(TARGET, name, "window", 16, 2)


@pytest.mark.parametrize("name", ["last-value:3", "nearest:2", "seasonal:²"])
def test_a_number_that_means_nothing_is_refused(name: str) -> None:
    """Rows labelled `nearest:2` would be those of `nearest`; a raised 2 would be a traceback."""
    with pytest.raises(InputError, match=name.partition(":")[0]):
        make_pair(TARGET, name, "window", 16, 2)


def test_models_that_do_not_fit_are_refused() -> None:
    """Mismatched patch lengths or contexts fail before anything is decoded."""
    other = made(dataclasses.replace(MODEL, patch_len=8), 16)
    with pytest.raises(InputError, match="patch length, got 4 and 8"):
        make_pair(TARGET, other, "window", 16, 2)
    with pytest.raises(InputError, match="trained on a context of 20 steps, longer than"):
        make_pair(TARGET, SMALL._replace(context_len=20), "window", 16, 2)
    unknown = TARGET._replace(context_len=None)
    with pytest.raises(InputError, match="context_len 18"):
        make_pair(unknown, SMALL, "window", 18, 2)
    with pytest.raises(InputError, match="'window' or 'cached', got 'windw'"):
        make_pair(TARGET, SMALL, "windw", 16, 2)
    covariate = made(dataclasses.replace(MODEL, covariate=True))
    with pytest.raises(InputError, match="covariate mask"):
        make_target(covariate, "cached", 16, 2)
    assert make_target(covariate, "window", 16, 2).patch_len == 4


def test_a_multi_patch_model_is_no_target() -> None:
    """What the target says would not be the next patch, which only the decode finds out."""
    with pytest.raises(InputError, match="patch"):
        make_target(MULTI, "window", 12, 2)


@pytest.mark.parametrize("kind", ["window", "cached"])
def test_only_causal_models_take_shorter_contexts(kind: str) -> None:
    """A model would silently see another context than the one it was trained on."""
    for context_len in (12, 20):
        with pytest.raises(InputError, match="trained on a context of 16"):
            make_target(TARGET, kind, context_len, 2)
    assert make_target(CAUSAL_TARGET, kind, 12, 2).context_len == 12
    with pytest.raises(InputError, match="trained on a context of 16"):
        make_target(CAUSAL_TARGET, kind, 20, 2)
    assert make_target(TARGET._replace(context_len=None), kind, 20, 2).context_len == 20
    longer = made(CAUSAL.scaled(0.5), 32)
    assert make_pair(CAUSAL_TARGET, longer, kind, 16, 2).draft.context_len == 16


def test_the_cached_process_normalises_as_the_model_was_trained() -> None:
    """A model would be fed values of another scale than in training."""
    raw = dataclasses.replace(MODEL, instance_norm=None)
    for model, norm in ((MODEL, "frozen"), (CAUSAL, "causal"), (raw, None)):
        assert pairs.norm_of(model) == norm
        assert make_target(made(model), "cached", 16, 1).norm == norm


def test_a_window_trained_model_is_pinned_for_the_cached_process() -> None:
    """Positions that move with the length would make every cached key wrong after a patch."""
    joint = make_target(TARGET, "cached", 16, 2)
    assert (joint.norm, joint.context_len) == ("frozen", 16)
    assert joint.model.config == dataclasses.replace(MODEL, variable_stride=4, max_patches=4)
    assert make_target(TARGET, "cached", 16, 1).model.config == MODEL
    assert make_target(CAUSAL_TARGET, "cached", 12, 2).model.config == CAUSAL


DRAFTS: dict[str, str | Checkpoint] = {
    "last-value": "last-value",
    "nearest": "nearest",
    "seasonal": "seasonal:5",
    "layers": "layer-skip:1",
    "model": SMALL,
    "patches": MULTI,
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param("last-value", "window", marks=pytest.mark.slow),
        pytest.param("seasonal", "cached", marks=pytest.mark.slow),
        pytest.param("nearest", "window", marks=pytest.mark.slow),
        ("layers", "cached"),
        ("model", "window"),
        ("patches", "cached"),
    ],
)
def test_every_draft_decodes(name: str, kind: str) -> None:
    """A draft that can be named but not decoded with is of no use."""
    pair = make_pair(TARGET, DRAFTS[name], kind, 16, 2)
    config = DecodeConfig(horizon=18, num_draft=3)
    forecast, info = decode(
        jax.random.key(0), BATCH, target=pair.target, draft=pair.draft, sigma=0.8, config=config
    )
    assert forecast.shape == (3, 18, 2)
    assert np.isfinite(forecast).all()
    kinds = [np.bincount(row, minlength=4) for row in np.asarray(info.origin)]
    for row, (accepted, recovered, bonus, plain) in enumerate(kinds):
        assert accepted + recovered + bonus == 5
        assert plain == 0
        assert accepted == int(info.accepted[row].sum())
        assert recovered == int((info.proposed[row] - info.accepted[row]).sum())
        assert int(info.target_passes[row]) == int(info.rounds[row]) <= 5
        assert int(info.drafted[row]) == draft_steps(info.origin[row].tolist(), 3)
    assert not np.asarray(info.overflow).any()


# --- pairs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "draft", "message"),
    [
        (last_value_draft(4), None, "must be a process"),
        ("beijing", None, "must be a process"),
        (make_target(TARGET, "window", 16, 1), object(), "got object"),
        (make_target(TARGET, "window", 16, 1), last_value_draft(3), "patch length, got 4 and 3"),
    ],
)
def test_a_pair_of_other_things_is_refused(target: object, draft: object, message: str) -> None:
    """A decode would end in a traceback, or after minutes of compilation."""
    with pytest.raises(InputError, match=message):
        Pair(target, draft)


def test_a_pair_is_a_pytree() -> None:
    """Its parameters would be compiled into every program, or jax could not hold it."""
    pair = make_pair(TARGET, SMALL, "cached", 16, 1)
    moved = jax.tree.map(lambda x: x, pair)
    assert jax.tree.structure(moved) == jax.tree.structure(pair)
    assert len(jax.tree.leaves(pair)) == len(jax.tree.leaves((pair.target, pair.draft)))
    assert jax.tree.map(lambda _: object(), pair).draft is not None  # placeholders of jax
    assert Pair(pair.target).draft is None
    with pytest.raises(InputError, match="no draft"):
        Pair(pair.target).proposer()


def test_the_model_for_series_never_seen_is_the_default() -> None:
    """The first line of every example would load something else."""
    pair = load_pair()
    assert (pair.target.patch_len, pair.target.context_len) == (16, 1024)
    assert pair.draft is None
    assert pair.covariance is not None


def test_a_pair_in_the_package_has_its_draft_and_covariance() -> None:
    """It would decode as slowly as the target alone, and its sums would be too sure."""
    pair = load_pair("beijing")
    assert (pair.target.patch_len, pair.target.context_len) == (24, 504)
    assert pair.draft is not None
    assert pair.covariance is not None
    np.testing.assert_allclose(pair.covariance.factor, load_covariance("beijing").factor)
    assert load_pair("beijing_target.safetensors").covariance is None  # a file is only a target
    for none in (None, "none"):
        assert load_pair("beijing", none).draft is None
    store_file = "beijing_target.safetensors"
    assert load_pair(store_file).draft is None  # only a pair by its name has a draft of its own


def test_a_model_of_ones_own_has_no_draft_unless_it_is_named(tmp_path: Path) -> None:
    """The draft of the package would propose for a model that it was not trained for."""
    store.save_model(tmp_path / "mine.npz", TARGET)
    store.save_model(tmp_path / "draft.npz", SMALL)
    for model in (TARGET, tmp_path / "mine.npz", str(tmp_path / "mine.npz")):
        assert load_pair(model).draft is None
        for draft in (SMALL, tmp_path / "draft.npz", str(tmp_path / "draft.npz")):
            assert load_pair(model, draft).draft.context_len == 8
    assert load_pair(TARGET).target.context_len == 16


def test_a_directory_does_not_hide_the_pair_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`load_pair("beijing")` would depend on where it is called."""
    monkeypatch.chdir(tmp_path)
    store.save_model("beijing", TARGET)
    assert load_pair("beijing", None).target.patch_len == 24
    assert load_pair("./beijing", None).target.patch_len == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "no/such.npz"}, "'no/such.npz'"),
        ({"model": 5}, "model must be .* 5"),
        ({"model": None}, "model must be .* None"),
        ({"draft": object()}, r"Pair\(load_pair"),
        ({"draft": "lastvalue"}, "'lastvalue'"),
        ({"process": "windw"}, "'windw'"),
        ({"context_len": 6}, "context_len 6"),
        ({"context_len": 20}, "16 steps.* 20"),
        ({"context_len": 0}, "context_len.* 0"),
        ({"context_len": 4.5}, r"context_len.* 4\.5"),
        ({"num_vars": 0}, "num_vars.* 0"),
    ],
)
def test_what_cannot_be_loaded_is_refused(settings: dict, message: str) -> None:
    """A typing mistake would be taken for another model, or be a traceback."""
    with pytest.raises(InputError, match=message):
        load_pair(**{"model": CAUSAL_TARGET, **settings})
