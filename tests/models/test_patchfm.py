"""PatchFM 3.2 against the original PyTorch code; see tools/golden_patchfm.py for the recording."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import GOLDEN as FILES
from helpers.families import Jitted, check_refused, prepare, relative, rolled
from helpers.toys import registered

from stride_jax import DecodeConfig, decode
from stride_jax.decoding.compiled import compiled
from stride_jax.decoding.rules import Mean
from stride_jax.errors import InputError
from stride_jax.forecasting.forecast import forecast
from stride_jax.models.patchfm import FAMILY
from stride_jax.models.patchfm.config import MEDIAN, PatchFMConfig
from stride_jax.models.patchfm.module import init_params
from stride_jax.models.patchfm.nine_paths import nine_paths_process, nine_times
from stride_jax.models.timesfm.draft import QuantileHeadDraft
from stride_jax.testing import check_process

with np.load(FILES / "patchfm.npz") as file:
    GOLDEN = dict(file)
P, LIMIT, PATCHES, HISTORIES = 8, 64, 7, 6
WAVE, GAPS, LONG = 0, 2, 4
"""Places of some of the recorded histories."""


def arrays() -> dict[str, np.ndarray]:
    """The recorded state dict."""
    return {k.removeprefix("patchfm/"): v for k, v in GOLDEN.items() if k.startswith("patchfm/")}


READ, PARAMS = FAMILY.read(arrays())
CONFIG = dataclasses.replace(READ, context_limit=LIMIT)
TARGET = FAMILY.make_process(CONFIG, PARAMS)
NINE = nine_paths_process(CONFIG, PARAMS)


def history(i: int) -> tuple[np.ndarray, float]:
    """A recorded history `[T]`, and its mean."""
    values = GOLDEN[f"history/{i}"]
    return values, float(np.nanmean(values))


def padded(values: np.ndarray) -> tuple[np.ndarray, jax.Array]:
    """A history `[T]` at the end of a context `[64, 1]`, and its steps: one shape, one program."""
    last = values[-LIMIT:]
    context = np.full((LIMIT, 1), 1e3, np.float32)
    context[LIMIT - len(last) :, 0] = last
    return context, jnp.int32(len(last))


@compiled
def verified(process: Any, context: jax.Array, length: jax.Array, proposals: jax.Array) -> Any:
    """Predictions after 0, 1, ..., K proposals, in one pass."""
    memory = process.prepare(context, length)
    return process.verify(memory, process.start(memory, len(proposals) + 1), proposals)[0]


@compiled
def continued(process: Any, context: jax.Array, length: jax.Array, proposals: jax.Array) -> Any:
    """The quantiles of the next patch after proposals that were verified and kept."""
    memory = process.prepare(context, length)
    count = len(proposals)
    _, state = process.verify(memory, process.start(memory, count + 1), proposals)
    state = process.commit(state, jnp.concatenate([proposals, proposals[:1]]), jnp.int32(count))
    return process.verify(memory, state, proposals[:0])[0].reported[0]


def median_path(i: int) -> Any:
    """The predictions of the median path after a recorded history, `[N, ...]`."""
    return rolled(TARGET, *padded(history(i)[0]), patches=PATCHES + 1)[0]


def nine_path(i: int) -> np.ndarray:
    """The nine paths after a recorded history, `[N, P, 9]`."""
    context, length = padded(history(i)[0])
    return np.asarray(rolled(NINE, nine_times(context), length, patches=PATCHES)[0].mean)


def test_the_file_is_recognised_and_read():
    """A downloaded file would not load, or load as another model."""
    shapes = {k: v.shape for k, v in arrays().items()}
    assert FAMILY.recognises(shapes) == 1
    assert FAMILY.missing(shapes) == []
    sizes = READ.patch_len, READ.d_model, READ.num_heads, READ.d_ff, READ.num_layers
    assert sizes == (P, 16, 2, 48, 2)
    expected = jax.eval_shape(lambda: init_params(jax.random.key(0), READ))
    assert jax.tree.map(lambda x: x.shape, expected) == jax.tree.map(np.shape, PARAMS)
    # a file without the frequencies of the rotation, which are no parameters, is whole
    config, params = FAMILY.read({k: v for k, v in arrays().items() if "freqs" not in k})
    assert config == READ
    assert jax.tree.all(jax.tree.map(np.array_equal, params, PARAMS))


def test_the_released_sizes():
    """The defaults would not be those of the released file.

    The number is the count of the parameters of `PatchFM(PatchFMConfig())` of patchfm 3.2.0.
    """
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), PatchFMConfig()))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 345_237_184


LAYER = "transformer_encoder.layers.1.attn"
BAD = {
    "missing": (lambda a: a.pop(f"{LAYER}.WK.bias"), f"{LAYER}.WK.bias is missing"),
    "extra": (lambda a: a.update(foreign=np.zeros(3)), "foreign is unknown"),
    "shape": (
        lambda a: a.update({f"{LAYER}.k_norm.weight": np.zeros(9)}),
        rf"{LAYER}.k_norm.weight has shape \(9,\)",
    ),
    "nan": (
        lambda a: a.update({f"{LAYER}.q_norm.weight": np.full(8, np.nan)}),
        f"{LAYER}.q_norm.weight holds NaN",
    ),
    "heads": (
        lambda a: a.update({"transformer_encoder.layers.0.attn.q_norm.weight": np.ones(7)}),
        "q_norm.weight has 7 numbers",
    ),
    "half heads": (
        lambda a: a.update({"transformer_encoder.layers.0.attn.q_norm.weight": np.ones(2)}),
        "must be a multiple of 4",
    ),
    "quantiles": (
        lambda a: a.update({"proj_output.residual_layer.weight": np.ones((40, 16))}),
        r"has shape \(40, 16\), expected 72 rows, 9 quantiles of each of 8 steps",
    ),
    "rotation": (
        lambda a: a.update({f"{LAYER}.rope.freqs": np.array([1.0, 0.5])}),
        rf"{LAYER}.rope.freqs holds \[1.  0.5\]",
    ),
    "nothing": (lambda a: a.clear(), "proj_embedding.residual_layer.weight is missing"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_names_the_tensor(name):
    """A truncated or foreign file would fail somewhere inside the model, or not at all."""
    check_refused(FAMILY, arrays(), *BAD[name])


@pytest.mark.parametrize("i", range(HISTORIES))
def test_outputs_at_every_patch_are_those_of_the_original(i):
    """The blocks, the running statistics or the missing values would not be the released ones."""
    values, level = history(i)
    expected = GOLDEN[f"outputs/{i}"]
    last = values[-LIMIT:]
    # all patches but the first as proposals; those that a short history lacks do not matter
    first = len(last) - (len(expected) - 1) * P
    proposals = np.zeros((PATCHES, P, 1), np.float32)
    proposals[: len(expected) - 1] = last[first:].reshape(-1, P, 1)
    context = np.zeros((P, 1), np.float32)
    context[P - first :, 0] = last[:first]
    outputs = verified(TARGET, context, jnp.int32(first), proposals).reported
    assert relative(outputs[: len(expected), :, 0] - level, expected - level) < 1e-5


@pytest.mark.parametrize("i", range(HISTORIES))
def test_the_median_path_is_that_of_the_original(i):
    """Statistics, positions, padding or caches would not be those of the original."""
    _, level = history(i)
    quantiles = np.asarray(median_path(i).reported)[:, :, 0]
    assert relative(quantiles[0] - level, GOLDEN[f"outputs/{i}"][-1] - level) < 1e-5
    assert relative(quantiles[1:] - level, GOLDEN[f"median/{i}"] - level) < 1e-5


@pytest.mark.parametrize("i", range(HISTORIES))
def test_the_nine_paths_are_those_of_the_original(i):
    """The released decode would not be what comes back: which values are fed to which path."""
    _, level = history(i)
    expected = GOLDEN[f"nine/{i}"]
    paths = nine_path(i).reshape(-1, 9)[: len(expected)]
    assert relative(paths[:P] - level, expected[:P] - level) < 1e-5
    assert relative(paths - level, expected - level) < 1e-4  # 1e4 has a resolution of 1e-3


def test_one_pass_is_single_steps():
    """Verification would accept or refuse by other predictions than those of the target alone."""
    context, length = padded(history(GAPS)[0])
    alone = median_path(GAPS)
    found = verified(TARGET, context, length, alone.mean[:-1])
    assert relative(found.reported, alone.reported) < 1e-5
    paths = nine_path(GAPS)
    found = verified(NINE, nine_times(context), length, jnp.asarray(paths[:-1]))
    assert relative(found.mean, paths) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("nine", [False, True])
def test_the_contract_of_a_process(nine):
    """Rejected proposals would leave traces, or the process propose other patches than it would."""
    context = 3 + np.random.default_rng(0).normal(size=(29, 2)).astype(np.float32)
    process, context = (NINE, nine_times(context[:, :1])) if nine else (TARGET, context)
    check_process(Jitted(process), jnp.asarray(context), num_draft=2, atol=1e-4)


def test_any_number_of_steps_and_padding():
    """A history of no whole number of patches would be cut, or its padding seen."""
    values = history(LONG)[0][:21]
    alone = prepare(TARGET, values[:, None], None)
    cut = FAMILY.make_process(CONFIG, PARAMS, 21)
    whole = np.concatenate([np.full(24, 1e3, np.float32), values])[:, None]
    for found in (prepare(TARGET, whole, jnp.int32(21)), prepare(cut, whole, None)):
        for name in ("pending", "moments", "origin"):
            assert relative(getattr(found, name), getattr(alone, name)) < 1e-5, name
        for ours, theirs in zip(found.prefill, alone.prefill, strict=True):
            count = theirs.keys.shape[1]
            assert relative(ours.keys[:, -count:], theirs.keys) < 1e-5


def test_a_history_that_begins_after_the_context():
    """Sigma of a short history would be measured on padding."""
    values = history(WAVE)[0][:11].reshape(-1, 1)
    context, proposals = np.full((P, 1), 7, np.float32), np.full((2, P, 1), 9, np.float32)
    proposals[0, P - 3 :], proposals[1] = values[:3], values[3:]
    found = verified(TARGET, context, jnp.int32(3 - P), proposals).reported
    first = np.concatenate([np.full((P - 3, 1), 9, np.float32), values[:3]])
    expected = verified(TARGET, first, jnp.int32(3), np.stack([values[3:]] * 2)).reported
    assert np.isfinite(found[0]).all()
    assert relative(found[1:], expected[:2]) < 1e-5
    later = continued(TARGET, context, jnp.int32(3 - P), proposals)
    assert relative(later, continued(TARGET, first, jnp.int32(3), values[3:][None])) < 1e-5


@registered
class Known(QuantileHeadDraft):
    """Proposals that are known beforehand, `[N, P, C]`, and need no target."""

    patches: Any = None

    def prepare_beside(self, target: Any, memory: Any) -> jax.Array:
        """The proposals."""
        return self.patches


@pytest.mark.parametrize("nine", [False, True])
def test_a_speculative_path_is_the_autoregressive_one(nine):
    """A draft would change the forecast; or a path of nine be kept where another one is refused."""
    process, paths = (NINE, nine_path(WAVE)) if nine else (TARGET, median_path(WAVE).mean[:PATCHES])
    context = history(WAVE)[0][:, None]
    context = nine_times(context) if nine else context
    config = DecodeConfig(horizon=PATCHES * P, num_draft=3)
    wrong = np.array(paths)
    wrong[1, :, -1] += 100  # one path alone
    cases = (paths, 1e-3, 2, 6), (wrong, 1e-3, None, None), (wrong, 0.0, 7, 0)
    for proposals, tolerance, passes, accepted in cases:
        path, info = decode(
            jax.random.key(0),
            context,
            target=process,
            draft=Known(P, jnp.asarray(proposals)),
            sigma=1.0,
            config=config,
            rule=Mean(tolerance),
        )
        assert relative(path, np.asarray(paths).reshape(PATCHES * P, -1)) < 1e-4
        assert passes in (None, int(info.target_passes))
        assert accepted in (None, int(info.accepted.sum()))
        if passes is None:
            # the wrong proposal is refused, and the first one of the next round stands after it
            assert info.origin[:3].tolist() == [0, 1, 0]


def test_nine_paths_need_nine_columns():
    """Nine variables, or one, would be taken for the nine paths of another."""
    with pytest.raises(InputError, match="10 columns; nine paths need every variable nine times"):
        jax.eval_shape(NINE.prepare, np.zeros((16, 10), np.float32))


def test_a_forecast_of_ragged_histories():
    """The front door would cut a history to whole patches, or change its units."""
    histories = [1e3 + 50 * (history(i)[0] - 3) for i in (WAVE, LONG)]
    histories[1] = histories[1][:37]
    options = {"num_samples": 0, "sigma": 1.0}
    found = forecast(TARGET, histories, 2 * P, **options)
    assert found.reports == FAMILY.make_process(CONFIG, PARAMS).reports
    for i, one in enumerate(histories):
        context, length = padded((one - 1e3).astype(np.float32))
        expected = rolled(TARGET, context, length, patches=PATCHES + 1)[0].reported[:2, :, 0]
        expected = np.asarray(expected).reshape(2 * P, 9)
        assert relative(found.reported[i].reshape(-1, 9) - 1e3, expected) < 1e-4
        assert relative(found.mean[i].reshape(-1) - 1e3, expected[:, MEDIAN]) < 1e-4
    # the nine paths are nine variables, forecast jointly
    nine = forecast(NINE, nine_times(histories[0][:, None]), 2 * P, variables="joint", **options)
    context, length = padded((histories[0] - 1e3).astype(np.float32))
    expected = rolled(NINE, nine_times(context), length, patches=PATCHES)[0].mean
    assert relative(nine.mean - 1e3, np.asarray(expected).reshape(-1, 9)[: 2 * P]) < 1e-4


def test_the_context_limit():
    """A longer context than any of the training would be used without a word."""
    limit = "more than the 64 steps of a history"
    for wrong, message in ((0, "from 1 on"), (65, limit), (2.5, "whole number")):
        for make in (FAMILY.make_process, nine_paths_process):
            with pytest.raises(InputError, match=message):
                make(CONFIG, PARAMS, wrong)
    assert FAMILY.make_process(CONFIG, PARAMS, 13).context_len == 13
    with pytest.raises(InputError, match="no step"):
        jax.eval_shape(TARGET.prepare, np.zeros((0, 1), np.float32))


def test_a_longer_history_is_cut_to_the_limit():
    """A history would be seen from another step on than by the original."""
    values = history(LONG)[0][:, None]
    found, last = (prepare(TARGET, x, None) for x in (values, values[-LIMIT:]))
    assert jax.tree.all(jax.tree.map(np.array_equal, found, last))


def test_products_have_the_precision_of_the_original():
    """On a GPU they would be rounded to 10 binary digits (TF32), unlike the original's."""
    program = str(jax.make_jaxpr(TARGET.prepare)(np.zeros((24, 1), np.float32)))
    assert "Precision.HIGHEST" in program
    assert "precision=None" not in program
