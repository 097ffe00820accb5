"""Timer 84M against the original PyTorch code; see tools/golden_timer.py for the recording."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import GOLDEN as FILES
from helpers.families import Jitted, check_refused, relative, rolled

from stride_jax import DecodeConfig, decode
from stride_jax.decoding.normalization import window_stats
from stride_jax.decoding.rules import Mean
from stride_jax.errors import InputError
from stride_jax.models.causal import Place
from stride_jax.models.timer import FAMILY
from stride_jax.models.timer.config import TimerConfig
from stride_jax.models.timer.module import Timer, init_params
from stride_jax.models.timer.params import read
from stride_jax.testing import check_process

GOLDEN = dict(np.load(FILES / "timer.npz"))
SERIES, P, PATCHES = GOLDEN["series"], 8, 4
CENTER, SCALE = GOLDEN["mean"][..., None], GOLDEN["std"][..., None]  # [2, 1, 1]


def arrays() -> dict[str, np.ndarray]:
    """The recorded state dict."""
    return {k.removeprefix("timer/"): v for k, v in GOLDEN.items() if k.startswith("timer/")}


CONFIG, PARAMS = FAMILY.read(arrays())
TARGET = FAMILY.make_process(CONFIG, PARAMS)


def test_the_file_is_recognised_and_read():
    """A downloaded file would not load, or load as another model."""
    shapes = {k: v.shape for k, v in arrays().items()}
    assert FAMILY.recognises(shapes) == 1
    assert FAMILY.missing(shapes) == []
    sizes = CONFIG.patch_len, CONFIG.d_model, CONFIG.num_heads, CONFIG.d_ff, CONFIG.num_layers
    assert sizes == (P, 32, 8, 48, 2)
    expected = jax.eval_shape(lambda: init_params(jax.random.key(0), CONFIG))
    assert jax.tree.map(lambda x: x.shape, expected) == jax.tree.map(np.shape, PARAMS)
    del shapes["model.norm.bias"]
    assert FAMILY.missing(shapes) == ["model.norm.bias"]
    assert 0.9 < FAMILY.recognises(shapes) < 1


def test_the_released_sizes():
    """The defaults would not be those of the released file, which holds 84,142,080 numbers."""
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), TimerConfig()))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 84_142_080


QUERY = "model.layers.1.self_attn.q_proj.bias"
BAD = {
    "missing": (lambda a: a.pop(QUERY), f"{QUERY} is missing"),
    "extra": (lambda a: a.update(foreign=np.zeros(3)), "foreign is unknown"),
    "shape": (lambda a: a.update({QUERY: np.zeros(9)}), rf"{QUERY} has shape \(9,\)"),
    "nan": (lambda a: a.update({QUERY: np.full(32, np.nan)}), f"{QUERY} holds NaN"),
    "width": (
        lambda a: a.update({"model.embed_layer.emb.weight": np.ones((20, 8))}),
        r"shape \(20, 8\) of model.embed_layer.emb.weight does not fit: d_model 20 over num_heads",
    ),
    "nothing": (lambda a: a.clear(), "model.embed_layer.emb.weight is missing"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_names_the_tensor(name):
    """A truncated or foreign file would fail somewhere inside the model, or not at all."""
    check_refused(FAMILY, arrays(), *BAD[name])
    with pytest.raises(InputError, match="num_heads 5 must be even"):
        read(arrays(), num_heads=5)


def test_outputs_at_every_patch_are_those_of_the_original():
    """The blocks or the head would not be the released model's."""
    normal = ((SERIES - GOLDEN["mean"]) / GOLDEN["std"]).reshape(2, -1, P)
    zero = jnp.zeros((), jnp.int32)
    found, _, _ = Timer(CONFIG).apply({"params": PARAMS}, normal, Place(zero, zero))
    assert relative(found, GOLDEN["outputs"]) < 1e-5


def test_the_autoregressive_path_is_that_of_the_original():
    """Statistics, positions or caches would not be those of the original's `generate`."""
    # two variables are two series
    predictions, _ = rolled(TARGET, SERIES.T, None, patches=PATCHES)
    found = predictions.mean.transpose(2, 0, 1)  # [N, P, C] -> [C, N, P]
    assert relative(found, GOLDEN["generated"] * SCALE + CENTER) < 1e-5
    assert relative(found[:, 0], GOLDEN["released"]) < 1e-5


@pytest.mark.slow
def test_a_pass_of_several_patches_is_single_steps():
    """Verification would accept or refuse by other predictions than those of the target alone."""
    check_process(Jitted(TARGET), jnp.asarray(SERIES.T), num_draft=2, atol=1e-4)


def test_without_tolerance_the_speculative_path_is_the_autoregressive_one():
    """The released decode would not be what a speculative one returns."""
    predictions, _ = rolled(TARGET, SERIES.T, None, patches=PATCHES)
    config = DecodeConfig(horizon=PATCHES * P, num_draft=2)
    for tolerance, passes in ((0.0, None), (1e-3, 2)):
        path, info = decode(
            jax.random.key(0),
            SERIES.T,
            target=TARGET,
            draft=TARGET,
            sigma=1.0,
            config=config,
            rule=Mean(tolerance),
        )
        assert relative(path, predictions.mean.reshape(-1, 2)) < 1e-4
        assert passes in (None, int(info.target_passes))


def test_the_unbiased_std():
    """The context would be normalised by another std than that of the training."""
    mean, std = window_stats(SERIES.T, unbiased=True)
    assert relative(mean.T, GOLDEN["mean"]) < 1e-6
    assert relative(std.T, GOLDEN["std"]) < 1e-6
    real = np.arange(48) >= 8
    _, masked = window_stats(SERIES.T, jnp.asarray(real), unbiased=True)
    np.testing.assert_allclose(masked[0], SERIES[:, 8:].std(axis=1, ddof=1), rtol=1e-5)
    constant = jnp.full((5, 1), 3.0)
    assert window_stats(constant, unbiased=True)[1].tolist() == [[1.0]]
    assert window_stats(constant[:1], unbiased=True)[1].tolist() == [[1.0]]


def test_the_context_limit():
    """A context longer than any of the training would be used without a word."""
    for wrong, message in (
        (4, "from 8 on"),
        (12, "whole patches of 8"),
        (2888, "more than the 2880"),
    ):
        with pytest.raises(InputError, match=message):
            FAMILY.make_process(CONFIG, PARAMS, wrong)
    assert FAMILY.make_process(CONFIG, PARAMS, 16).context_len == 16


def test_a_longer_history_is_cut_to_the_limit():
    """The command line would refuse a long table, and name an option that it has not."""
    config = dataclasses.replace(CONFIG, context_limit=36)
    process = FAMILY.make_process(config, PARAMS)
    found, last = (Jitted(process).prepare(x) for x in (SERIES.T, SERIES.T[-32:]))
    assert jax.tree.all(jax.tree.map(np.array_equal, found, last))
    assert found.prefill.cache[0].keys.shape[1] == 3


def test_products_have_the_precision_of_the_original():
    """On a GPU they would be rounded to 10 binary digits (TF32), unlike the original's."""
    program = str(jax.make_jaxpr(TARGET.prepare)(SERIES.T))
    assert "Precision.HIGHEST" in program
    assert "precision=None" not in program
