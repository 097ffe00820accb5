"""What Timer-XL has beyond the original: causal statistics and masks, a limit, several patches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.models import forward, params_of, sensitivity, series

from stride_jax.errors import InputError
from stride_jax.models import TimerXL, init_params, make_predict
from stride_jax.models.attention import attention_mask
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.running import first_value, split_context, tamed
from stride_jax.models.timer.config import TimerConfig

P = 4
FAST = {"xla_backend_optimization_level": 0}
SMALL = TimerXLConfig(
    patch_len=P,
    d_model=16,
    num_heads=2,
    d_ff=24,
    num_layers=2,
    instance_norm="causal",
    variable_stride=0,
    dropout=0.0,
)


def make(**changes) -> TimerXLConfig:
    """A small model."""
    return dataclasses.replace(SMALL, **changes)


def leaves(config, x, **options) -> list[np.ndarray]:
    """Mean, and log variance of a gaussian head."""
    return jax.tree.leaves(forward(config, x, **options))


def change_of_the_past(config: TimerXLConfig, num_vars: int = 3) -> float:
    """The largest change of the distributions of the past when the future changes a lot."""
    x = series(1, 7 * P, num_vars)
    before, worst = leaves(config, x), 0.0
    steps = P * config.output_patches
    for now in (1, 4, 6):
        other = x.copy()
        other[:, now * P :] = 100 + 30 * series(1, (7 - now) * P, num_vars, seed=now)
        after = leaves(config, other)
        for a, b in zip(before, after, strict=True):
            worst = max(worst, np.abs(a - b)[:, : now * steps].max())
            assert np.abs(a - b)[:, now * steps :].max() > 1e-3  # and the future does follow
    return float(worst)


CAUSAL = {
    "causal norm": make(),
    "gaussian": make(head="gaussian"),
    "no norm": make(instance_norm=None),
    "positions by index": make(variable_stride=None),
    "integer stride": make(variable_stride=9),
    "limited": make(max_patches=3),
    "covariate": make(covariate=True, covariate_mask="causal"),
    "covariate, limited, gaussian": make(
        covariate=True, covariate_mask="causal", max_patches=2, head="gaussian"
    ),
    "several patches": make(output_patches=2),
    "gelu, bfloat16": make(activation="gelu", dtype="bfloat16"),
}


@pytest.mark.parametrize("name", CAUSAL)
def test_the_future_does_not_change_the_past(name):
    """Verifying proposals in one pass would judge each of them by those after it."""
    assert change_of_the_past(CAUSAL[name]) <= 1e-6


@pytest.mark.parametrize(
    "changes",
    [{"covariate": True, "instance_norm": None}, {"instance_norm": "window"}],
    ids=["original's covariate mask", "norm of the whole window"],
)
def test_what_is_not_causal_is_seen(changes):
    """The test above would pass for a model that does look ahead."""
    assert change_of_the_past(make(**changes)) > 1e-2


def test_causal_covariate_mask():
    """The last variable would see the future, or not all of the past; or variables would mix."""
    config = make(covariate=True, covariate_mask="causal", instance_norm=None, num_layers=1)
    slope = sensitivity(config, series(1, 5 * P, 3))
    for n in range(5):
        for c in range(3):
            for m in range(5):
                for d in range(3):
                    sees = m <= n and (c in (2, d))
                    assert (slope[n, c, m, d] > 0) == sees, (n, c, m, d)


@pytest.mark.parametrize("covariate", [False, True])
@pytest.mark.parametrize("limit", [None, 1, 2, 9])
def test_attention_mask_slow(covariate, limit):
    """Tokens would see what a limit or a mask forbids."""
    config = make(covariate=covariate, covariate_mask="causal", max_patches=limit)
    found = attention_mask(3, 4, config)
    for c in range(3):
        for n in range(4):
            for d in range(3):
                for m in range(4):
                    sees = m <= n and (limit is None or n - m < limit)
                    sees = sees and (not covariate or c in (2, d))
                    assert found[c * 4 + n, d * 4 + m] == sees


@pytest.mark.parametrize("instance_norm", ["causal", None])
def test_masks_that_cannot_be_causal_are_refused(instance_norm):
    """A model would be trained with running statistics and still see the future."""
    limit = None if instance_norm else 3
    with pytest.raises(InputError, match="covariate_mask 'causal'"):
        make(covariate=True, instance_norm=instance_norm, max_patches=limit)


# Causal instance normalisation.


def by_hand(config: TimerXLConfig, x: np.ndarray, n: int) -> list[np.ndarray]:
    """Distribution after patch n: every patch standardised by numpy with its own prefix."""
    length = x.shape[1] // P
    rows = x.astype(np.float64)
    prefix = [rows[:, : (i + 1) * P] for i in range(length)]
    center = np.stack([p.mean(axis=1) for p in prefix], 1)[:, :, None]  # [B, N, 1, C]
    scale = np.sqrt(np.stack([p.var(axis=1) for p in prefix], 1)[:, :, None] + 1e-5)
    normal = (rows.reshape(len(x), length, P, -1) - center) / scale
    plain = dataclasses.replace(config, instance_norm=None)
    out = leaves(plain, normal.astype(np.float32).reshape(x.shape), params=params_of(config))
    mean, logvar = (z[:, n * P : (n + 1) * P] for z in out)
    return [mean * scale[:, n] + center[:, n], logvar + 2 * np.log(scale[:, n])]


def test_causal_norm_is_that_of_each_prefix():
    """Training would normalise by other statistics than decoding."""
    config = make(head="gaussian")
    x = (5 + series(2, 6 * P, 3)) * np.array([1, 10, 0.1], np.float32)
    found = leaves(config, x)
    for n in range(6):
        for a, b in zip(found, by_hand(config, x, n), strict=True):
            np.testing.assert_allclose(a[:, n * P : (n + 1) * P], b, rtol=1e-4, atol=1e-4)
    last = leaves(config, x, last_only=True)
    for a, b in zip(found, last, strict=True):
        np.testing.assert_allclose(b, a[:, -P:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("scale", "shift"), [(20.0, 0.0), (1.0, 300.0), (4.0, -50.0)])
def test_causal_forecasts_follow_the_units_of_the_series(scale, shift):
    """Celsius and Fahrenheit would get different forecasts."""
    config = make(head="gaussian")
    x = series(1, 6 * P, 3)
    mean, logvar = leaves(config, x)
    mean2, logvar2 = leaves(config, (scale * x + shift).astype(np.float32))
    # eps = 1e-5 in the variance and the float32 of x + shift are not scale-free
    tolerance = 2e-4 * scale + 1e-5 * abs(shift)
    np.testing.assert_allclose(mean2, scale * mean + shift, atol=tolerance)
    np.testing.assert_allclose(logvar2, logvar + 2 * np.log(scale), atol=2 * tolerance / scale)


def sixteenths(length: int, num_vars: int) -> np.ndarray:
    """Random values of spread 1 that float32 holds exactly at 1e6: multiples of 1/16."""
    return np.round(16 * np.random.default_rng(0).normal(size=(1, length, num_vars))) / 16


def centred_context(context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A context of float64 with its mean taken off before float32 rounds it, and the mean."""
    offset = context.mean(axis=-2, keepdims=True)
    return (context - offset).astype(np.float32), offset


def test_causal_norm_at_a_high_level():
    """A meter reading in the millions would be forecast from rounding noise.

    The output itself is a float32 near 1e6, rounded to sixteenths: 1/32 at most, .018 RMS.
    """
    config = make(head="gaussian")
    x = sixteenths(8 * P, 3)
    high = (1e6 + x).astype(np.float32)
    np.testing.assert_array_equal(high.astype(np.float64) - 1e6, x)
    centred, offset = centred_context(1e6 + x)
    expected, logvar = leaves(config, centred)
    mean, logvar2 = leaves(config, high)
    error = mean.astype(np.float64) - offset - expected
    assert np.sqrt(np.mean(error**2)) < 2e-2
    assert np.abs(error).max() < 1 / 32 + 5e-3
    np.testing.assert_allclose(logvar2, logvar, atol=1e-3)


@pytest.mark.parametrize("norm", ["window", "causal"])
def test_a_centred_context_has_the_same_forecasts(norm):
    """Centring on the host would change the forecast instead of saving its digits."""
    config = make(instance_norm=norm)
    x = sixteenths(8 * P, 3)
    (plain,) = leaves(config, x.astype(np.float32))
    centred, offset = centred_context(1e6 + x)
    (found,) = leaves(config, centred)
    np.testing.assert_allclose(found + (offset - 1e6), plain, atol=1e-4)


def test_a_constant_series_is_finite():
    """One flat stretch of a sensor would turn a forecast or all parameters into NaN."""
    config = make(head="gaussian")

    def loss(params, x):
        mean, logvar = TimerXL(config).apply({"params": params}, x)
        return jnp.mean(mean) + jnp.mean(logvar)

    slopes = jax.jit(jax.grad(loss), compiler_options=FAST)
    for level in (0.0, 3.0, -1e6):
        x = np.full((1, 8 * P, 3), level, np.float32)
        assert all(np.isfinite(z).all() for z in leaves(config, x))
        assert all(np.isfinite(z).all() for z in jax.tree.leaves(slopes(params_of(config), x)))


def test_causal_gradients_reach_through_the_statistics():
    """Training would treat the running statistics as constants of the input."""
    config = make(num_layers=1, max_patches=1)
    slope = sensitivity(config, series(1, 5 * P, 2))
    for n in range(5):
        for m in range(5):
            # attention sees patch n alone, the statistics everything up to it
            assert (slope[n, 0, m, 0] > 0) == (m <= n)


# A limit on the patches attended to.


@pytest.mark.parametrize(("layers", "limit"), [(1, 3), (2, 2)])
def test_a_limit_is_a_receptive_field(layers, limit):
    """Positions of neighbouring variables would meet in a sequence that has grown long."""
    config = make(instance_norm=None, num_layers=layers, max_patches=limit)
    slope = sensitivity(config, series(1, 7 * P, 2))
    reach = layers * (limit - 1) + 1
    for n in range(7):
        for m in range(7):
            sees = n - reach < m <= n
            assert ((slope[n, 0, m, 0] > 0), (slope[n, 1, m, 1] > 0)) == (sees, sees), (n, m)
            assert (slope[n, 0, m, 1] > 0) == sees


def test_a_change_before_the_limit_does_not_change_the_distribution():
    """An old outlier would still move a model that is said to have forgotten it."""
    config = make(instance_norm=None, num_layers=1, max_patches=3)
    x = series(1, 7 * P, 3)
    for changed, moved in ((4, False), (5, True)):  # of 7 patches the last 3 are 4, 5, 6
        other = x.copy()
        other[:, : changed * P] = 100 * series(1, changed * P, 3, seed=1)
        (a,), (b,) = leaves(config, x, last_only=True), leaves(config, other, last_only=True)
        assert (np.abs(a - b).max() > 1e-3) == moved


def test_a_limit_of_the_whole_input_is_none():
    """A model pinned to its trained context would not be the model that was trained."""
    x = series(2, 6 * P, 3)
    for a, b in zip(leaves(make(max_patches=6), x), leaves(make(), x), strict=True):
        np.testing.assert_array_equal(a, b)


# Several patches in one pass.


@pytest.mark.parametrize(("head", "norm"), [("mean", "window"), ("gaussian", "causal")])
def test_several_patches_in_one_pass(head, norm):
    """A multi-patch draft would propose the patches of another position."""
    config = make(head=head, instance_norm=norm, output_patches=2)
    x = 2 + series(2, 5 * P, 3)
    full, last = leaves(config, x), leaves(config, x, last_only=True)
    assert len(full) == len(last) == (1 if head == "mean" else 2)
    for a, b in zip(full, last, strict=True):
        assert a.shape == (2, 5 * 2 * P, 3)
        assert b.shape == (2, 2 * P, 3)
        np.testing.assert_allclose(b, a[:, -2 * P :], atol=1e-5)
    predict = jax.jit(make_predict(config, params_of(config)), compiler_options=FAST)
    distribution = predict(jnp.asarray(x[0]))
    assert distribution.mean.shape == (2 * P, 3)
    np.testing.assert_allclose(distribution.mean, last[0][0], atol=1e-5)


def test_several_patches_come_in_the_order_of_time():
    """The steps of a multi-patch forecast would be shuffled."""
    config = make(instance_norm=None, output_patches=3)
    head = {"kernel": jnp.zeros((16, 3 * P)), "bias": jnp.arange(3.0 * P)}
    x = series(2, 2 * P, 2)
    (found,) = leaves(config, x, params={**params_of(config), "head": head})
    expected = np.tile(np.arange(3 * P), 2)[None, :, None]
    np.testing.assert_array_equal(found, np.broadcast_to(expected, (2, 6 * P, 2)))


def test_the_first_of_several_patches_is_the_next():
    """A multi-patch model could not be compared with the one-patch model it came from."""
    one, two = make(head="gaussian"), make(head="gaussian", output_patches=2)
    params = params_of(two)
    cut = {
        name: jax.tree.map(lambda z: z[..., :P], params[name])
        for name in ("head_mean", "head_logvar")
    }
    x = series(2, 4 * P, 3)
    single = leaves(one, x, params={**params, **cut})
    for a, b in zip(leaves(two, x), single, strict=True):
        first = a.reshape(2, 4, 2, P, 3)[:, :, 0]
        np.testing.assert_allclose(first.reshape(b.shape), b, atol=1e-5)


# Names of the stored parameters.


@pytest.mark.parametrize("head", ["mean", "gaussian"])
def test_names_of_the_parameters(head):
    """Published and stored checkpoints could not be read any more."""
    config = make(head=head, output_patches=2)
    shapes = jax.eval_shape(lambda key: init_params(key, config), jax.random.key(0))
    found = {
        "/".join(k.key for k in path): leaf.shape
        for path, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]
    }
    dense = {"embedding": (P, 16)}
    dense |= dict.fromkeys(["head"] if head == "mean" else ["head_mean", "head_logvar"], (16, 8))
    norms, expected = ["norm"], {}
    for i in range(2):
        for name in ("query", "key", "value", "out"):
            dense[f"block_{i}/attention/{name}"] = (16, 16)
        dense |= {f"block_{i}/ffn_in": (16, 24), f"block_{i}/ffn_out": (24, 16)}
        norms += [f"block_{i}/norm1", f"block_{i}/norm2"]
        expected[f"block_{i}/attention/variable_bias"] = (2, 2)
    for name, shape in dense.items():
        expected |= {f"{name}/kernel": shape, f"{name}/bias": shape[1:]}
    for name in norms:
        expected |= {f"{name}/scale": (16,), f"{name}/bias": (16,)}
    assert found == expected


def test_a_length_beyond_what_the_model_sees_leaves_no_padding():
    """The first steps would be counted from before the context, and positions be off."""
    context = jnp.arange(10.0)[:, None]
    options = {"longest": 6, "size": 2, "least": 1, "title": "it"}
    patches, padding = split_context(context, jnp.int32(9), **options)
    expected, none = split_context(context, None, **options)
    np.testing.assert_array_equal(patches, expected)
    assert int(padding) == int(none) == 0


def test_a_history_of_nothing_has_the_first_value_0():
    """Padding would be the origin of the statistics; it may be anything."""
    patches = jnp.full((2, 3, 2), 7.0)
    seen = jnp.zeros(patches.shape, bool).at[1, 1, 0].set(True)
    np.testing.assert_array_equal(first_value(patches, seen), [7.0, 0.0])


def test_wild_values_are_cut_off():
    """A weight of 0 times what overflows is NaN, also at the places before a wild proposal."""
    wild = jnp.asarray([jnp.nan, jnp.inf, -jnp.inf, 1e30, -1e30, 3.0])
    found = np.asarray(tamed(wild))
    assert found[0] == 0
    assert np.abs(found).max() <= 1e12
    assert found[-1] == 3


def test_a_context_of_no_step_is_refused():
    """A forecast of nothing would be made of padding."""
    with pytest.raises(InputError, match="no step"):
        split_context(jnp.zeros((0, 1)), None, longest=6, size=2, least=1, title="it")


def test_heads_of_an_odd_width_are_refused():
    """Half of a pair would be rotated, or the split of a head fail inside a compiled program."""
    with pytest.raises(InputError, match="must be even"):
        TimerConfig(d_model=9, num_heads=3)
