"""Timer-XL against the original's recorded outputs, slow numpy code and its own symmetries."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import CASES, load_case
from helpers.models import forward, params_of, sensitivity, series
from hypothesis import given, settings
from hypothesis import strategies as st

from stride_jax.checkpoints.pytorch import load_pytorch
from stride_jax.errors import InputError
from stride_jax.models import TimerXL, init_params, make_predict
from stride_jax.models.attention import attention_mask
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.rotary import rotate, token_positions

PROPERTY = settings(deadline=None, max_examples=10, derandomize=True)
SMALL = TimerXLConfig(
    patch_len=4, d_model=16, num_heads=2, d_ff=24, num_layers=2, instance_norm=None, dropout=0.3
)
BFLOAT16_UNIT = 2.0**-8
"""Largest relative error of rounding one number to bfloat16."""


def parity_errors(case: str) -> dict[str, float]:
    """The largest absolute error of every recorded output of a golden case, by its name."""
    arrays, record, settings_ = load_case(case)
    config, params = load_pytorch(arrays, **settings_)
    config = dataclasses.replace(config, precision="highest")  # also on a GPU
    out = forward(config, record["x"], params)
    found = (
        dict(zip(("mean", "logvar"), out, strict=True)) if isinstance(out, tuple) else {"y": out}
    )
    assert set(found) == set(record) & {"y", "mean", "logvar"}

    predict = jax.jit(jax.vmap(make_predict(config, params)))
    window, patches, horizon = record["x"], [], int(record["rolled_horizon"])
    length = window.shape[1]
    while len(patches) * config.patch_len < horizon:
        patches.append(np.asarray(predict(window).mean))
        window = np.concatenate([window, patches[-1]], axis=1)[:, -length:]
    found["rolled"] = np.concatenate(patches, axis=1)[:, :horizon]
    for name, value in found.items():
        assert value.shape == record[name].shape
        assert value.dtype == np.float32
    return {name: float(np.abs(value - record[name]).max()) for name, value in found.items()}


@pytest.mark.parametrize("case", CASES)
def test_outputs_match_the_original(case):
    """The port would not compute what the original's published weights were trained to compute."""
    errors = parity_errors(case)
    assert max(errors.values()) <= 1e-5, errors


@pytest.mark.parametrize("case", [c for c in CASES if c.startswith("draft")])
def test_drafts_have_the_recorded_dimensions(case):
    """A converted draft would be read with other dimensions than it was built with."""
    arrays, record, settings_ = load_case(case)
    config, _ = load_pytorch(arrays, **settings_)
    dims = (config.d_model, config.num_heads, config.d_ff, config.num_layers)
    assert dims == tuple(record["dims"])


@pytest.mark.parametrize("case", ["draft_stochastic", "target_covariate", "target_univariate_deep"])
def test_last_only_is_the_last_patch(case):
    """Decoding (which asks for the last patch only) would forecast something else than training."""
    arrays, record, settings_ = load_case(case)
    config, params = load_pytorch(arrays, **settings_)
    full = forward(config, record["x"], params)
    last = forward(config, record["x"], params, last_only=True)
    assert isinstance(last, tuple) == isinstance(full, tuple)
    for a, b in zip(jax.tree.leaves(full), jax.tree.leaves(last), strict=True):
        assert b.shape == (a.shape[0], config.patch_len, a.shape[2])
        np.testing.assert_allclose(b, a[:, -config.patch_len :], atol=1e-5)


@pytest.mark.parametrize("changed", [1, 2, 4])
def test_later_patches_do_not_change_earlier_outputs(changed):
    """Training on every position would learn from the answer."""
    x = series(2, 20, 3)
    other = x.copy()
    other[:, 4 * changed :] = series(2, 20 - 4 * changed, 3, seed=1)
    before, after = forward(SMALL, x), forward(SMALL, other)
    np.testing.assert_allclose(after[:, : 4 * changed], before[:, : 4 * changed], atol=1e-6)
    # and every variable of each later position does depend on the change
    gap = np.abs(after - before)[:, 4 * changed :].reshape(2, 5 - changed, 4, 3).max(axis=(0, 2))
    assert gap.min() > 1e-3


def test_gradients_do_not_flow_back_in_time():
    """A leak too small to see in one perturbation would still be learned from."""
    x = series(1, 20, 2)
    slope = sensitivity(SMALL, x)
    for n in range(5):
        for other in range(5):
            if other > n:
                assert slope[n, :, other].max() == 0
            else:
                assert slope[n, :, other].min() > 0


def test_covariate_mode_sees_the_future_in_the_last_variable_alone():
    """The cached process would be offered a model that is not causal, or variables would mix."""
    config = dataclasses.replace(SMALL, covariate=True, num_layers=1)
    x = series(1, 20, 3)
    slope = sensitivity(config, x)
    for n in range(5):
        for c in range(3):
            for other_n in range(5):
                for other_c in range(3):
                    sees = other_n <= n if other_c == c else c == 2
                    assert (slope[n, c, other_n, other_c] > 0) == sees


def test_a_series_does_not_depend_on_its_batch():
    """A forecast would change with what else is in the batch."""
    config = dataclasses.replace(SMALL, instance_norm="window", head="gaussian")
    x = series(3, 12, 2) * np.array([1, 10, 100], np.float32)[:, None, None]
    together = forward(config, x)
    for i in range(3):
        alone = forward(config, x[i : i + 1])
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(b[0], a[i], rtol=1e-5, atol=1e-5 * 10.0**i)


def test_variables_may_be_permuted_when_the_stride_is_zero():
    """With the paper's time-only positions the order of columns would matter."""
    x, order = series(2, 20, 3), [2, 0, 1]
    free = dataclasses.replace(SMALL, variable_stride=0)
    np.testing.assert_allclose(
        forward(free, x[..., order]), forward(free, x)[..., order], atol=2e-6
    )
    # the original's positions tell variables apart
    assert np.abs(forward(SMALL, x[..., order]) - forward(SMALL, x)[..., order]).max() > 1e-3


def test_variable_stride_none_is_the_number_of_patches():
    """A model trained with the original's positions would be continued with others."""
    x = series(2, 20, 3)
    by_index = forward(SMALL, x)
    same = forward(dataclasses.replace(SMALL, variable_stride=5), x)
    np.testing.assert_array_equal(same, by_index)
    for stride in (0, 4):
        other = forward(dataclasses.replace(SMALL, variable_stride=stride), x)
        assert np.abs(other - by_index).max() > 1e-4
    # one variable has no neighbour whose distance the stride could set
    alone = forward(dataclasses.replace(SMALL, variable_stride=0), x[..., :1])
    np.testing.assert_allclose(alone, forward(SMALL, x[..., :1]), atol=1e-6)


@PROPERTY
@given(
    num_vars=st.integers(1, 4),
    num_patches=st.integers(1, 5),
    stride=st.none() | st.integers(0, 9),
)
def test_token_positions_slow(num_vars, num_patches, stride):
    """Tokens would be rotated by the angle of another place."""
    expected = [
        c * (num_patches if stride is None else stride) + n
        for c in range(num_vars)
        for n in range(num_patches)
    ]
    np.testing.assert_array_equal(token_positions(num_vars, num_patches, stride), expected)


@pytest.mark.slow
@PROPERTY
@given(half=st.sampled_from([1, 4]), count=st.sampled_from([1, 5]), start=st.integers(0, 300))
def test_rotate_slow(half, count, start):
    """Another rotation than the original's: published weights would be useless."""
    width = 4 * half
    x = np.random.default_rng(count).normal(size=(2, 3, count, width)).astype(np.float32)
    positions = start + 7 * np.arange(count)
    expected = x.astype(np.float64)
    turned = width // 2
    for s, position in enumerate(positions):
        for i in range(turned // 2):
            turn = np.exp(1j * position * 10000.0 ** (-2 * i / turned))
            z = (x[:, :, s, 2 * i] + 1j * x[:, :, s, 2 * i + 1]) * turn
            expected[:, :, s, 2 * i], expected[:, :, s, 2 * i + 1] = z.real, z.imag
    found = np.asarray(rotate(jnp.asarray(x), positions))
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_array_equal(found[..., turned:], x[..., turned:])
    assert rotate(jnp.asarray(x, jnp.bfloat16), positions).dtype == jnp.bfloat16


@PROPERTY
@given(first=st.integers(0, 40), second=st.integers(0, 40), shift=st.integers(1, 200))
def test_rotated_products_depend_on_the_distance_alone(first, second, shift):
    """A model would behave differently later in a longer context."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 1, 2, 16)), jnp.float32)

    def product(a: int, b: int) -> float:
        turned = np.asarray(rotate(x, np.array([a, b])), np.float64)
        return turned[0, 0, 0] @ turned[0, 0, 1]

    assert product(first, second) == pytest.approx(product(first + shift, second + shift), abs=1e-5)


@PROPERTY
@given(num_vars=st.integers(1, 4), num_patches=st.integers(1, 5), covariate=st.booleans())
def test_attention_mask_slow(num_vars, num_patches, covariate):
    """Tokens would see the future, or not see their past."""
    expected = np.zeros((num_vars * num_patches,) * 2, bool)
    for c in range(num_vars):
        for n in range(num_patches):
            for d in range(num_vars):
                for m in range(num_patches):
                    sees = m <= n
                    if covariate and c != d:
                        sees = c == num_vars - 1
                    expected[c * num_patches + n, d * num_patches + m] = sees
    config = dataclasses.replace(SMALL, covariate=covariate)
    found = attention_mask(num_vars, num_patches, config)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, expected)


def test_dropout_follows_its_key():
    """Training would not be reproducible, or would run without dropout, or forecasts with it."""
    x = series(2, 20, 3)

    def noisy(key: int, config=SMALL):
        return forward(config, x, key=jax.random.key(key), deterministic=False)

    np.testing.assert_array_equal(noisy(0), noisy(0))
    assert np.abs(noisy(0) - noisy(1)).max() > 1e-2
    clean = forward(SMALL, x)
    assert np.abs(noisy(0) - clean).max() > 1e-2
    with_key = forward(SMALL, x, key=jax.random.key(0))
    np.testing.assert_array_equal(with_key, clean)
    without = dataclasses.replace(SMALL, dropout=0.0)
    np.testing.assert_allclose(noisy(0, without), clean, atol=1e-6)


@pytest.mark.parametrize("norm", [None, "window"])
@pytest.mark.parametrize(("bias", "limit"), [(1000.0, 10.0), (-1000.0, -10.0), (0.5, 0.5)])
def test_logvar_is_clamped_before_denormalisation(norm, bias, limit):
    """exp(logvar) would overflow, or be clamped in the units of the file."""
    config = dataclasses.replace(SMALL, head="gaussian", instance_norm=norm)
    head = {"kernel": jnp.zeros((16, 4)), "bias": jnp.full(4, bias)}
    params = {**params_of(config), "head_logvar": head}
    x = 300 * series(2, 12, 2)
    _, logvar = forward(config, x, params)
    shift = np.log(x.astype(np.float64).var(axis=1, keepdims=True) + 1e-5) if norm else 0.0
    np.testing.assert_allclose(logvar, np.broadcast_to(limit + shift, x.shape), rtol=1e-5)


def test_new_parameters_start_where_the_original_does():
    """A new draft would start with a variance or weights of another size."""
    config = dataclasses.replace(SMALL, head="gaussian", d_model=64, d_ff=128)
    params = init_params(jax.random.key(1), config)
    np.testing.assert_array_equal(params["head_logvar"]["bias"], np.full(4, -2.0, np.float32))
    np.testing.assert_array_equal(params["head_mean"]["bias"], np.zeros(4, np.float32))
    kernels = [
        leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
        if path[-1].key == "kernel"
    ]
    assert len(kernels) == 1 + 2 * 6 + 2
    for kernel in kernels:  # uniform in +-1/sqrt(fan_in)
        limit = kernel.shape[0] ** -0.5
        assert 0.9 * limit < np.abs(kernel).max() <= limit
        assert np.std(kernel) == pytest.approx(limit / 3**0.5, rel=0.1)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


def bfloat16_errors(case: str) -> tuple[float, float, int]:
    """RMS and largest error of bfloat16 against float32 over the output's std, and the layers."""
    arrays, record, settings_ = load_case(case)
    config, params = load_pytorch(arrays, **settings_)
    short = dataclasses.replace(config, dtype="bfloat16")
    exact, found = (jax.tree.leaves(forward(c, record["x"], params))[0] for c in (config, short))
    assert found.dtype == np.float32
    error = (found - exact) / exact.std()
    return float(np.sqrt(np.mean(error**2))), float(np.abs(error).max()), config.num_layers


@pytest.mark.parametrize(
    "case", ["draft_stochastic", "target_gelu_nonorm", "target_univariate_deep"]
)
def test_bfloat16_errs_by_its_rounding_alone(case):
    """Statistics or outputs would be rounded to 8 bits too, or bfloat16 would not be used.

    Each layer adds independent rounding errors of at most one unit: a few units times sqrt(layers).
    """
    rms, largest, layers = bfloat16_errors(case)
    unit = BFLOAT16_UNIT * layers**0.5
    assert BFLOAT16_UNIT / 100 < rms < 2 * unit
    assert largest < 8 * unit


def test_bfloat16_keeps_statistics_and_outputs_in_float32():
    """A series far from zero would lose everything but its level."""
    config = dataclasses.replace(SMALL, instance_norm="window")
    x = 1000 + series(2, 16, 2)
    exact = forward(config, x)
    found = forward(dataclasses.replace(config, dtype="bfloat16"), x, params_of(config))
    unit = BFLOAT16_UNIT * config.num_layers**0.5
    assert np.sqrt(np.mean((found - exact) ** 2)) < 4 * unit * exact.std()


@pytest.mark.parametrize("head", ["mean", "gaussian"])
def test_gradient_is_the_slope_of_the_loss(head):
    """Training would step in a wrong direction (a cut or wrong derivative somewhere)."""
    config = dataclasses.replace(
        SMALL, head=head, activation="gelu", instance_norm="window", num_layers=1
    )
    x, y = series(2, 12, 2), series(2, 12, 2, seed=5)

    @jax.jit
    def loss(params):
        out = TimerXL(config).apply({"params": params}, x)
        mean, logvar = out if head == "gaussian" else (out, jnp.zeros_like(y))
        return 0.5 * jnp.mean(logvar + jnp.square(y - mean) * jnp.exp(-logvar))

    params = params_of(config)
    leaves, tree = jax.tree.flatten(params)
    slopes = jax.tree.leaves(jax.jit(jax.grad(loss))(params))
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    rng = np.random.default_rng(0)
    for i, (path, slope) in enumerate(zip(paths, slopes, strict=True)):
        size = np.linalg.norm(slope)
        assert size > 0, path
        random = rng.normal(size=slope.shape)
        for way in (slope / size, random / np.linalg.norm(random)):
            step = jnp.asarray(way, jnp.float32)

            def along(h: float, step=step, i=i) -> float:
                moved = [*leaves[:i], leaves[i] + h * step, *leaves[i + 1 :]]
                return float(loss(jax.tree.unflatten(tree, moved)))

            # Richardson: the error of the central difference falls with h^4. What is left is the
            # rounding of the loss, about 2^-24 (8 terms / 6 h), and a part of the slope.
            coarse, fine = ((along(h) - along(-h)) / (2 * h) for h in (0.08, 0.04))
            rounding = 2.0**-24 * abs(along(0.0)) * 10 / (6 * 0.04) * 8
            expected = float(np.sum(np.asarray(slope, np.float64) * way))
            found = (4 * fine - coarse) / 3
            assert found == pytest.approx(expected, abs=float(rounding + 0.01 * size)), path


def test_gradients_are_finite_for_a_constant_window():
    """One flat stretch of a sensor would turn all parameters into NaN."""
    config = dataclasses.replace(SMALL, head="gaussian", instance_norm="window")
    x = jnp.full((1, 12, 2), 3.0)

    def loss(params):
        mean, logvar = TimerXL(config).apply({"params": params}, x)
        return jnp.sum(mean) + jnp.sum(logvar)

    value, slopes = jax.jit(jax.value_and_grad(loss))(params_of(config))
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


@PROPERTY
@given(scale=st.floats(0.5, 50), shift=st.floats(-100, 100))
def test_forecasts_follow_the_units_of_the_series(scale, shift):
    """Celsius and Fahrenheit would get different forecasts."""
    config = dataclasses.replace(SMALL, head="gaussian", instance_norm="window")
    x = series(1, 12, 2)
    mean, logvar = forward(config, x)
    mean2, logvar2 = forward(config, (scale * x + shift).astype(np.float32))
    # eps = 1e-5 in the variance and the float32 of x + shift are not scale-free
    tolerance = 1e-4 * scale + 1e-5 * abs(shift)
    np.testing.assert_allclose(mean2, scale * mean + shift, atol=tolerance)
    np.testing.assert_allclose(logvar2, logvar + 2 * np.log(scale), atol=2 * tolerance / scale)


def test_predict_is_the_last_patch_of_the_model():
    """The decoders would use another distribution than the model's."""
    x = series(1, 12, 2)
    for head in ("mean", "gaussian"):
        config = dataclasses.replace(SMALL, head=head, instance_norm="window")
        distribution = jax.jit(make_predict(config, params_of(config)))(x[0])
        out = forward(config, x)
        mean, logvar = out if head == "gaussian" else (out, None)
        np.testing.assert_allclose(distribution.mean, mean[0, -4:], atol=1e-5)
        assert (distribution.logvar is None) == (logvar is None)
        if logvar is not None:
            np.testing.assert_allclose(distribution.logvar, logvar[0, -4:], atol=1e-5)


def test_equal_configs_compile_once_and_parameters_are_traced():
    """Every new checkpoint would compile anew, or the first one's numbers would be baked in."""
    traces = []

    @jax.jit
    def run(predict, window):
        traces.append(predict)
        return predict(window).mean

    window = jnp.asarray(series(1, 12, 2)[0])
    first = params_of(SMALL)
    second = jax.tree.map(lambda leaf: 1.5 * leaf, first)
    same_config = TimerXLConfig(**dataclasses.asdict(SMALL))
    one = run(make_predict(SMALL, first), window)
    two = run(make_predict(same_config, second), window)
    assert len(traces) == 1
    for params, found in ((first, one), (second, two)):
        expected = forward(SMALL, window[None], params, last_only=True)[0]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(jax.tree.leaves(make_predict(SMALL, first))) == len(jax.tree.leaves(first))
    run(make_predict(dataclasses.replace(SMALL, variable_stride=0), first), window)
    assert len(traces) == 2


@pytest.mark.parametrize("shape", [(12, 2), (2, 3, 12, 2), (2, 0, 3), (2, 3, 2), (2, 13, 2)])
def test_a_wrong_input_shape_is_refused(shape):
    """A transposed or ragged batch would end in an error deep inside a reshape."""
    with pytest.raises(InputError, match=r"patch_len 4.*\[|\[B, L, C\]") as caught:
        TimerXL(SMALL).apply({"params": params_of(SMALL)}, jnp.zeros(shape))
    assert str(shape) in str(caught.value)
