"""TimesFM 2.5 against the original PyTorch code; see tools/golden_timesfm.py for the recording."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from golden import GOLDEN as FILES
from helpers.families import Jitted, check_refused, prepare, relative, rolled
from helpers.toys import registered

from stride_jax import DecodeConfig, decode
from stride_jax.decoding.rules import Mean
from stride_jax.errors import InputError
from stride_jax.forecasting.forecast import forecast
from stride_jax.models.timesfm import FAMILY
from stride_jax.models.timesfm.config import TimesFMConfig
from stride_jax.models.timesfm.draft import QuantileHeadDraft
from stride_jax.models.timesfm.module import init_params
from stride_jax.models.timesfm.outputs import OutputOptions, read_outputs
from stride_jax.models.timesfm.whole_pass import outputs_at_tokens
from stride_jax.testing import check_draft, check_process

GOLDEN = dict(np.load(FILES / "timesfm.npz"))
LAYOUTS = ("google", "transformers")
P, T, STEPS = 16, 4, 8
SERIES, PAD = GOLDEN["series"], GOLDEN["pad"]


def arrays(layout: str = "google") -> dict[str, np.ndarray]:
    """The recorded state dict of a layout."""
    return {
        k.removeprefix(f"{layout}/"): v for k, v in GOLDEN.items() if k.startswith(f"{layout}/")
    }


CONFIG, PARAMS = FAMILY.read(arrays())
TARGET = FAMILY.make_process(CONFIG, PARAMS)
DRAFT = FAMILY.drafts["quantile-head"](TARGET)


def outputs_of(context: np.ndarray, length: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """The outputs of the autoregressive decode `[N, P, C, Q]`, and those of the long head."""
    predictions, memory = rolled(TARGET, context, length, patches=STEPS)
    return predictions.reported, TARGET.long_outputs(memory)


def padded(history: np.ndarray, filling: float = 0.0) -> tuple[np.ndarray, jax.Array]:
    """A history `[T]` at the end of a context `[64, 1]`, and its steps: one shape, one program."""
    context = np.full((64, 1), filling, np.float32)
    context[64 - len(history) :, 0] = history
    return context, jnp.int32(len(history))


def test_both_layouts_are_recognised_and_hold_the_same_parameters():
    """A downloaded file of one of the two would not load, or load as another model."""
    for layout in LAYOUTS:
        shapes = {k: v.shape for k, v in arrays(layout).items()}
        assert FAMILY.recognises(shapes) == 1
        assert FAMILY.missing(shapes) == []
        config, params = FAMILY.read(arrays(layout))
        assert config == CONFIG
        assert jax.tree.all(jax.tree.map(np.array_equal, params, PARAMS))
    assert (CONFIG.num_heads, CONFIG.d_ff, CONFIG.long_len) == (2, 24, 48)
    expected = jax.eval_shape(lambda: init_params(jax.random.key(0), CONFIG))
    assert jax.tree.map(lambda x: x.shape, expected) == jax.tree.map(np.shape, PARAMS)


def test_the_released_sizes():
    """The defaults would not be those of the released file: 203.4 M parameters, and the long head.

    The numbers follow from the shapes of the original's definition (timesfm 3.0.2).
    """
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), TimesFMConfig()))
    counts = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in shapes.items()}
    assert counts["long"] == 1280 * 1280 + 2 * 10240 * 1280
    assert sum(counts.values()) - counts["long"] == 203_436_480


def test_bfloat16_arrays_stay_what_they_are():
    """A file of half the size would take the memory of a whole one."""
    half = {k: v.astype(ml_dtypes.bfloat16) for k, v in arrays().items()}
    _, params = FAMILY.read(half)
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype(ml_dtypes.bfloat16)}


QUERY = "stacked_xf.1.attn.query_ln.scale"
BAD = {
    "missing": (lambda a: a.pop(QUERY), f"{QUERY} is missing"),
    "extra": (lambda a: a.update(foreign=np.zeros(3)), "foreign is unknown"),
    "shape": (lambda a: a.update({QUERY: np.zeros(9)}), rf"{QUERY} has shape \(9,\)"),
    "nan": (lambda a: a.update({QUERY: np.full(8, np.nan)}), f"{QUERY} holds NaN"),
    "heads": (
        lambda a: a.update({"stacked_xf.0.attn.query_ln.scale": np.ones(7)}),
        "query_ln.scale has 7 numbers",
    ),
    "axes": (
        lambda a: a.update({"tokenizer.residual_layer.weight": np.ones(7)}),
        r"tokenizer.residual_layer.weight has shape \(7,\), expected 2 axes",
    ),
    "nothing": (lambda a: a.clear(), "tokenizer.residual_layer.weight is missing"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_names_the_tensor(name):
    """A truncated or foreign file would fail somewhere inside the model, or not at all."""
    check_refused(FAMILY, arrays(), *BAD[name])


def test_outputs_at_every_token_are_those_of_the_original():
    """The blocks, statistics or heads would not be the released model's."""
    run = jax.jit(jax.vmap(lambda x, n: outputs_at_tokens(CONFIG, PARAMS, x, n)))
    patch, long = run(SERIES[..., None], SERIES.shape[1] - PAD)
    for i, pad in enumerate(PAD):
        first = pad // T
        assert relative(patch[i, first:, :, 0], GOLDEN["outputs"][i, first:]) < 1e-5
        assert relative(long[i, first:, :, 0], GOLDEN["spread_all"][i, first:]) < 1e-5
    # a second implementation of the original, which shares no code with the first
    assert relative(patch[:2, -1, :, 0], GOLDEN["transformers_forecast"]) < 1e-5


def test_the_autoregressive_path_is_that_of_the_original():
    """What is fed back, its statistics, positions or caches would not be those of the release."""
    for i, pad in enumerate(PAD):
        outputs, long = outputs_of(*padded(SERIES[i, pad:]))
        assert relative(outputs[:1, ..., 0, :], GOLDEN["outputs"][i, -1:]) < 1e-5
        assert relative(outputs[1:, ..., 0, :], GOLDEN["rolled"][i]) < 1e-4
        assert relative(long[:, 0], GOLDEN["spread"][i]) < 1e-5


SETTINGS = {
    "none": OutputOptions(False, False, False, False),
    "force_flip_invariance": OutputOptions(True, False, False, False),
    "use_continuous_quantile_head": OutputOptions(False, True, False, False),
    "fix_quantile_crossing": OutputOptions(False, False, True, False),
    "infer_is_positive": OutputOptions(False, False, False, True),
    "normalize_inputs": OutputOptions(False, False, False, False),
    "all": OutputOptions(True, True, True, True),
}


def test_the_options_of_the_wrapper():
    """A forecast with an option on would not be the one that its users know."""
    for i in range(3):
        history = GOLDEN[f"history/{i}"].astype(np.float64)
        steps = np.arange(len(history))
        gaps = np.isnan(history)
        history = np.interp(steps, steps[~gaps], history[~gaps])[np.argmin(gaps) :]
        context, length = padded(history[-64:])
        horizon = len(GOLDEN["option/none/0"])
        (outputs, long), (flipped, back) = (outputs_of(x, length) for x in (context, -context))
        flat = [x.reshape(-1, 1, 10)[:horizon] for x in (outputs, flipped)]
        for name, options in SETTINGS.items():
            found = read_outputs(
                options, context, flat[0], flipped=flat[1], long=long, long_flipped=back
            )
            assert relative(found[:, 0], GOLDEN[f"option/{name}/{i}"]) < 1e-4, name
    with pytest.raises(InputError, match="flip_invariance needs the argument flipped"):
        read_outputs(OutputOptions(), context, flat[0])
    options, outputs = SETTINGS["use_continuous_quantile_head"], outputs.reshape(-1, 1, 10)
    with pytest.raises(InputError, match="reaches 48 steps, the forecast has 128"):
        read_outputs(options, context, outputs, long=long)


def test_a_pass_of_several_patches_is_single_steps():
    """Verification would accept or refuse by other predictions than those of the target alone."""
    context = 3 + np.random.default_rng(0).normal(size=(45, 2)).astype(np.float32)
    single = dataclasses.replace(CONFIG, num_layers=1)
    process = FAMILY.make_process(single, {k: v for k, v in PARAMS.items() if k != "layer_1"})
    check_process(Jitted(process), jnp.asarray(context), num_draft=2, atol=1e-4)


def test_any_number_of_steps_and_padding():
    """A history of no whole number of tokens would be cut, or its padding seen."""
    history = 3 + np.random.default_rng(1).normal(size=21).astype(np.float32)
    alone = prepare(TARGET, history[:, None], None)
    context, length = padded(history, 1e3)
    limited = FAMILY.make_process(CONFIG, PARAMS, 21)
    for found in (prepare(TARGET, context, length), prepare(limited, context, None)):
        for name in ("features", "center", "scale", "origin"):
            assert relative(getattr(found, name), getattr(alone, name)) < 1e-5, name


CONTEXT = np.random.default_rng(2).normal(size=(2, 64, 1)).astype(np.float32)


def decoded(rule: Mean, draft: Any = None, num_draft: int = 7, patches: int = STEPS):
    """The mean path of the target, with or without a draft."""
    config = DecodeConfig(horizon=patches * P, num_draft=num_draft)
    return decode(
        jax.random.key(0), CONTEXT, target=TARGET, draft=draft, sigma=1.0, config=config, rule=rule
    )


def test_without_tolerance_the_speculative_path_is_the_autoregressive_one():
    """Caches, statistics or feedback after a rejection would differ from the released decode."""
    alone, _ = decoded(Mean(0.0))
    both, info = decoded(Mean(0.0), DRAFT)
    assert relative(both, alone) < 1e-5
    # the first proposal is the target's own patch, but for rounding
    both, info = decoded(Mean(1e-4), DRAFT)
    assert relative(both, alone) < 1e-4
    assert info.accepted[:, 0].tolist() == [1, 1]


def test_the_long_head_proposes_the_next_patches():
    """The free draft would propose other places than those that are verified."""
    both, info = decoded(Mean(1e9, emit_proposal=True), DRAFT, num_draft=3)
    assert info.target_passes.tolist() == [2, 2]
    for i in range(2):
        outputs, long = outputs_of(CONTEXT[i], jnp.int32(64))
        assert relative(both[i, :P], outputs[0, ..., 5]) < 1e-5
        assert relative(both[i, P : 3 * P], long[P : 3 * P, :, 5]) < 1e-5
    # the fourth patch is the target's; after the three of the head its last value goes on
    repeated = np.broadcast_to(both[:, 4 * P - 1][:, None], (2, 3 * P, 1))
    assert relative(both[:, 4 * P : 7 * P], repeated) < 1e-6


@registered
class Bound(QuantileHeadDraft):
    """The free draft with a forecast of three patches that needs no target."""

    def prepare(self, context: jax.Array, length: Any = None) -> jax.Array:
        """Patches of 0, 1 and 2."""
        return jnp.broadcast_to(jnp.arange(3.0)[:, None, None], (3, P, 1))


def test_later_rounds_propose_the_places_that_remain():
    """After a rejection the draft would begin again, or stay where it was."""
    draft = Bound(P)
    memory = draft.prepare(CONTEXT[0])
    state = draft.start(memory, 9)
    patches = jnp.full((4, P, 1), 7.0) + jnp.arange(4.0)[:, None, None]
    for count, expected in ((0, [0, 1, 2, 2]), (1, [1, 2, 7, 7]), (3, [9, 9, 9, 9])):
        state = draft.commit(state, patches, jnp.int32(count))
        found, _ = draft.predict_next(memory, state, (4, P, 1))
        assert found.mean[:, 0, 0].tolist() == expected
    check_draft(draft, jnp.asarray(CONTEXT[0]))


def test_the_free_draft_needs_its_target():
    """Proposals would come from nowhere, or from another model's prefill."""
    with pytest.raises(InputError, match="does not decode alone"):
        decode(
            jax.random.key(0),
            CONTEXT,
            target=None,
            draft=DRAFT,
            sigma=1.0,
            config=DecodeConfig(horizon=P, num_draft=1),
        )
    with pytest.raises(InputError, match="long head of a TimesFM target, got int"):
        DRAFT.prepare_beside(3, None)


def test_the_free_draft_keeps_its_contract():
    """`check_draft` would have no way to a draft that lies in its target."""
    context = jnp.asarray(CONTEXT[0])
    check_draft(DRAFT, context, target=TARGET)
    with pytest.raises(InputError, match="does not decode alone; give the target too"):
        check_draft(DRAFT, context)


def test_a_forecast_of_ragged_histories():
    """The front door would cut a history to whole patches, or change its units."""
    histories = [1e3 + 50 * np.random.default_rng(n).normal(size=n) for n in (64, 37)]
    found = forecast(TARGET, histories, 2 * P, num_samples=0, sigma=1.0).mean
    for one, path in zip(histories, found, strict=True):
        outputs, _ = outputs_of(*padded(one - 1e3))
        # [N, P, 1, Q] -> [2 P, 1]
        expected = 1e3 + outputs[:2, ..., 5].reshape(-1, 1)
        assert relative(path.reshape(-1, 1) - 1e3, expected - 1e3) < 1e-4


def test_the_context_limit():
    """Positions beyond those of the training would be used without a word."""
    small = dataclasses.replace(TARGET, config=dataclasses.replace(CONFIG, context_limit=64))
    whole = dataclasses.replace(small, context_len=64)
    with pytest.raises(InputError, match="a context of 64 steps and 16 more"):
        jax.eval_shape(whole.prepare, CONTEXT[0])
    memory = jax.eval_shape(dataclasses.replace(small, context_len=40).prepare, CONTEXT[0])
    with pytest.raises(InputError, match="a context of 40 steps and 32 more"):
        small.start(memory, 2)
    for wrong, message in ((0, "from 1 on"), (16384, "leaves no room"), (2.5, "whole number")):
        with pytest.raises(InputError, match=message):
            FAMILY.make_process(CONFIG, PARAMS, wrong)


def test_a_longer_history_is_cut_to_the_limit():
    """The command line would refuse a long table, and name an option that it has not."""
    config = dataclasses.replace(CONFIG, context_limit=16 * P + 40)
    process = FAMILY.make_process(config, PARAMS)
    context, length = CONTEXT[0], jnp.int32(64)
    found = [prepare(process, x, n) for x, n in ((context, None), (context[-40:], None))]
    assert jax.tree.all(jax.tree.map(np.array_equal, *found))
    masked = prepare(process, context, length)
    assert relative(masked.features, found[0].features) < 1e-5
    jax.eval_shape(lambda x: process.start(process.prepare(x), 16), context)


def test_products_have_the_precision_of_the_original():
    """On a GPU they would be rounded to 10 binary digits (TF32), unlike the original's."""
    program = str(jax.make_jaxpr(TARGET.prepare)(CONTEXT[0]))
    assert "Precision.HIGHEST" in program
    assert "precision=None" not in program
