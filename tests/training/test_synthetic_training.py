"""Training on generated windows: the mixing share, the crps loss, warm-up, and the anchor."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from stride_jax.data import splits
from stride_jax.data.config import DataConfig
from stride_jax.data.splits import ForecastData, Splits
from stride_jax.data.synthetic_series import FAMILIES
from stride_jax.decoding.processes import cached_process
from stride_jax.errors import InputError
from stride_jax.models.cached import CachedTimerXL
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import TimerXL, init_params
from stride_jax.training import losses
from stride_jax.training import step as training
from stride_jax.training.config import OptimConfig, RunConfig, TrainConfig

MODEL = TimerXLConfig(
    patch_len=8,
    d_model=16,
    num_heads=2,
    d_ff=32,
    num_layers=1,
    head="gaussian",
    anchor="last",
    instance_norm="causal",
    variable_stride=0,
    dropout=0.0,
)
WAVES = tuple(name for name in FAMILIES if name != "waves")


def config_of(out: Path, share: float, **optim: object) -> TrainConfig:
    """A training on waves and on what `data_of` holds."""
    return TrainConfig(
        data=DataConfig(
            source="x.csv",
            context_len=32,
            variables="separate",
            synthetic_share=share,
            synthetic_without=WAVES,
        ),
        model=MODEL,
        loss="crps",
        optim=OptimConfig(batch_size=8, **optim),
        run=RunConfig(out=str(out)),
    )


def data_of(value: float) -> ForecastData:
    """A constant series, or one of NaN that no training may touch."""
    values = np.full((200, 1), value, np.float32)
    rows = Splits((0, 100), (100, 200), (100, 200))
    return ForecastData(values, np.zeros(1), np.ones(1), ("x",), None, rows)


def windows_of(config: TrainConfig, value: float, *steps: int) -> list[np.ndarray]:
    """The batch of each step that the loss sees."""
    data, seen = data_of(value), []
    task = training.next_patch_task(config, data)

    def loss(params, windows, key):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), windows)
        return jnp.sum(params["x"]), {}

    optimizer = training.make_optimizer(config.optim, 10)
    params = {"x": jnp.zeros(())}
    run = jax.jit(training.make_step(task._replace(loss=loss), optimizer, config.optim, 10))
    for step in steps:
        state = training.TrainState(
            params,
            optimizer.init(params),
            jnp.asarray(step, jnp.int32),
            jnp.asarray(jnp.inf),
            jnp.zeros((), jnp.int32),
        )
        run(state, jnp.asarray(data.values), jnp.arange(task.train.count), jax.random.key(1))
        jax.effects_barrier()
    assert len(seen) == len(steps)
    return seen


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.25, 2), (0.6, 5), (1.0, 8)])
def test_the_share_of_a_batch_is_generated(tmp_path: Path, share: float, count: int) -> None:
    """A share that is not taken trains on other series than the config says."""
    (windows,) = windows_of(config_of(tmp_path, share), 7.0, 0)
    assert windows.shape == (8, 40, 1)
    np.testing.assert_array_equal((windows == 7.0).all(axis=(1, 2)), np.arange(8) < 8 - count)


@pytest.mark.parametrize("share", [0.01, 0.0625])
def test_a_share_of_no_window_is_refused(tmp_path: Path, share: float) -> None:
    """A training would see none of the generated windows that its config asks for."""
    message = rf"synthetic_share {share} of a batch of 8 is {8 * share:.2g} windows.*at least 0.125"
    with pytest.raises(InputError, match=message):
        training.next_patch_task(config_of(tmp_path, share), data_of(7.0))


@pytest.mark.parametrize("share", [0.94, 0.99])
def test_a_share_that_leaves_no_window_of_the_series_is_refused(
    tmp_path: Path, share: float
) -> None:
    """A training would never see the series that its config names."""
    message = rf"leaves {8 * (1 - share):.2g} windows of the series, .*at most 0.875, or to 1"
    with pytest.raises(InputError, match=message):
        training.next_patch_task(config_of(tmp_path, share), data_of(7.0))


def test_generated_windows_follow_the_step_alone(tmp_path: Path) -> None:
    """A resumed run must see the windows it would have seen, and never the same ones twice."""
    config = config_of(tmp_path, 1.0)
    first, other, again = windows_of(config, np.nan, 3, 4, 3)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(again, first)
    assert not np.isclose(other, first).all(axis=1).any()


def test_the_synthetic_source_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A validation on windows of the training would call every memory a forecast."""
    calls = []

    def draw(key, count, length):
        calls.append((int(jax.random.key_data(key)[-1]), count, length))
        return jnp.ones((count, length, 1)) * jnp.arange(count)[:, None, None]

    monkeypatch.setattr(splits, "draw_windows", draw)
    config = DataConfig(
        source="synthetic", variables="separate", context_len=32, synthetic_share=1.0
    )
    data = splits.load_data(config)
    assert calls == [(splits.HELD_OUT_KEY, splits.HELD_OUT, 64)]
    assert data.values.shape == (64, splits.HELD_OUT)
    np.testing.assert_array_equal(data.values[5], np.arange(splits.HELD_OUT))
    train, validation = training.training_windows(config, data, 8)
    assert train.count == validation.count == splits.HELD_OUT * (64 - 40 + 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"synthetic_share": 1.2}, r"synthetic_share must be in \[0, 1\], got 1.2"),
        ({"synthetic_share": 0.5, "variables": "joint"}, "set variables 'separate'"),
        ({"source": "synthetic"}, "set synthetic_share 1, got 0.0"),
    ],
)
def test_shares_that_cannot_be_are_refused(fields: dict[str, object], message: str) -> None:
    """A share without effect would be taken for one."""
    with pytest.raises(InputError, match=message):
        DataConfig(**{"variables": "separate", **fields})


def test_an_unknown_family_and_a_crps_of_a_mean_are_refused(tmp_path: Path) -> None:
    """A misspelt ablation would train on everything."""
    config = config_of(tmp_path, 0.5)
    wrong = dataclasses.replace(config.data, synthetic_without=("wavs",))
    with pytest.raises(InputError, match="no family 'wavs'"):
        training.next_patch_task(dataclasses.replace(config, data=wrong), data_of(0.0))
    with pytest.raises(InputError, match=r"set model\.head gaussian, got mean"):
        dataclasses.replace(config, model=dataclasses.replace(MODEL, head="mean"))


@pytest.mark.parametrize(("mean", "sd", "truth"), [(0, 1, 0), (1.5, 0.3, 1.1), (-2, 4, 7)])
def test_crps_is_the_integral_of_its_definition(mean: float, sd: float, truth: float) -> None:
    """A wrong constant trades the mean against the scale."""
    cdf = scipy.stats.norm(mean, sd).cdf
    low, high = mean - 12 * sd - abs(truth), mean + 12 * sd + abs(truth)
    below, _ = scipy.integrate.quad(lambda x: cdf(x) ** 2, low, truth, limit=200)
    above, _ = scipy.integrate.quad(lambda x: (1 - cdf(x)) ** 2, truth, high, limit=200)
    got = losses.gaussian_crps(jnp.float32(mean), jnp.float32(2 * np.log(sd)), jnp.float32(truth))
    np.testing.assert_allclose(got, below + above, rtol=1e-4)


def test_the_gradient_of_crps_is_bounded() -> None:
    """With the likelihood one outlier has a gradient as large as it is far."""
    grads = jax.grad(losses.gaussian_crps, argnums=(0, 1))
    for truth in (1e2, 1e4, 1e6):
        to_mean, to_logvar = grads(jnp.float32(0), jnp.float32(0), jnp.float32(truth))
        assert abs(to_mean) <= 1 + 1e-6
        assert abs(to_logvar) <= 1


@pytest.mark.slow
def test_a_flat_start_does_not_dominate_the_loss(tmp_path: Path) -> None:
    """Units of the running std alone are as small as its floor where a series starts flat."""
    data = data_of(0.0)
    task = training.next_patch_task(config_of(tmp_path, 0.0), data)
    params = init_params(jax.random.key(0), MODEL)
    wave = np.sin(np.arange(40) / 2)[None, :, None].astype(np.float32)
    flat = wave.copy()
    flat[:, :24] = 0.0
    values = [float(task.loss(params, jnp.asarray(x), jax.random.key(0))[0]) for x in (wave, flat)]
    assert values[1] < 5 * values[0]
    scaled = float(task.loss(params, jnp.asarray(1e3 * wave), jax.random.key(0))[0])
    np.testing.assert_allclose(scaled, values[0], rtol=1e-3)  # a unit of the series


@pytest.mark.slow
def test_crps_validation_is_that_of_the_patch_after_the_context(tmp_path: Path) -> None:
    """The best checkpoint is taken by it: rows of the training split would decide, too."""
    config = config_of(tmp_path, 0.0)
    task = training.next_patch_task(config, data_of(0.0))
    assert task.validation_name == "val_crps"
    params = init_params(jax.random.key(0), MODEL)
    windows = jax.random.normal(jax.random.key(1), (3, 40, 1))
    each = task.validation_error(params, windows)
    assert each.shape == (3,)
    mean, logvar = TimerXL(MODEL).apply({"params": params}, windows[:, :32])
    entries = losses.gaussian_crps(mean, logvar, windows[:, 8:])[..., 0].reshape(3, 4, 8)
    running = np.stack([np.var(windows[:, : 8 * n, 0], axis=1) + 1e-5 for n in range(1, 5)], axis=1)
    floor = 0.2 * np.std(windows[:, :, 0], axis=1)
    entries = entries / np.maximum(np.sqrt(running), floor[:, None])[..., None]
    np.testing.assert_allclose(each, np.mean(entries[:, -1], axis=1), rtol=1e-4)
    # the loss is that of all patches but the first one, whose unit is of itself alone
    loss, _ = task.loss(params, windows, jax.random.key(0))
    np.testing.assert_allclose(loss, np.mean(entries[:, 1:]), rtol=1e-4)


@pytest.mark.slow
def test_crps_validation_leaves_missing_truths_out(tmp_path: Path) -> None:
    """One missing value of a validation split would end a training with an error of NaN."""
    task = training.next_patch_task(config_of(tmp_path, 0.0), data_of(0.0))
    params = init_params(jax.random.key(0), MODEL)
    windows = jax.random.normal(jax.random.key(1), (3, 40, 1))
    holes = windows.at[:, 34:36].set(jnp.nan)
    got = task.validation_error(params, holes)
    mean, logvar = TimerXL(MODEL).apply({"params": params}, windows[:, :32], last_only=True)
    entries = losses.gaussian_crps(mean, logvar, windows[:, 32:])[..., 0]
    running = np.sqrt(np.var(windows[:, :32, 0], axis=1) + 1e-5)
    expected = np.delete(entries, [2, 3], axis=1).mean(axis=1) / running
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def gappy_crps(tmp_path: Path) -> tuple[training.Task, ForecastData]:
    """A task of crps, and its series: waves in which the whole truth of a window is missing."""
    data = data_of(0.0)
    data.values[:, 0] = np.sin(np.arange(200) / 3)
    data.values[150:162] = np.nan
    return training.next_patch_task(config_of(tmp_path, 0.0), data), data


def test_a_filled_cell_of_a_context_is_no_truth(tmp_path: Path) -> None:
    """The best epoch would be the one that is best at the straight lines that fill the gaps."""
    task, data = gappy_crps(tmp_path)
    params = init_params(jax.random.key(0), MODEL)
    windows = task.validation.gather(data.on_device, jnp.arange(task.validation.count))
    unseen = np.isnan(windows[:, 32:, 0]).all(axis=1)
    assert unseen.sum() == 5  # the windows of the 5 patches of 8 rows inside the 12 that miss
    each = jax.jit(task.validation_error)(params, windows)
    np.testing.assert_array_equal(np.isnan(each), unseen)


def test_a_window_without_truth_is_left_out_of_the_validation(tmp_path: Path) -> None:
    """A training would end with the news that its loss is nan, which is finite."""
    task, data = gappy_crps(tmp_path)
    params = init_params(jax.random.key(0), MODEL)
    found = training.make_validate(task, 8)(params, data.on_device)
    windows = task.validation.gather(data.on_device, jnp.arange(task.validation.count))
    each = jax.jit(task.validation_error)(params, windows)
    np.testing.assert_allclose(found, np.nanmean(each), rtol=1e-5)


def test_the_rate_warms_up(tmp_path: Path) -> None:
    """A full first step of Adam throws a new model off."""
    optim = OptimConfig(learning_rate=2.0, schedule="constant", warmup_steps=4)
    schedule = training.learning_rate(optim, 10)
    got = [float(schedule(jnp.asarray(step))) for step in (0, 1, 3, 4, 50)]
    np.testing.assert_allclose(got, [0.5, 1.0, 2.0, 2.0, 2.0])
    cosine = dataclasses.replace(optim, schedule="cosine", epochs=2)
    plain = training.learning_rate(dataclasses.replace(cosine, warmup_steps=0), 10)
    np.testing.assert_allclose(float(training.learning_rate(cosine, 10)(1)), plain(1) / 2)
    with pytest.raises(InputError, match="warmup_steps must be at least 0, got -1"):
        OptimConfig(warmup_steps=-1)


def test_weight_decay_is_that_of_adamw() -> None:
    """Decay inside the gradient is another optimiser."""
    optim = OptimConfig(learning_rate=0.1, schedule="constant", weight_decay=0.5)
    optimizer = training.make_optimizer(optim, 10)
    params = {"x": jnp.asarray([4.0, -2.0])}
    updates, _ = optimizer.update({"x": jnp.zeros(2)}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["x"], [-0.1 * 0.5 * 4, 0.1 * 0.5 * 2], rtol=1e-6)


@pytest.mark.slow
def test_a_head_of_nothing_forecasts_the_last_value() -> None:
    """A random walk is forecast by its last value without anything to learn."""
    params = init_params(jax.random.key(0), MODEL)
    params["head_mean"] = jax.tree.map(jnp.zeros_like, params["head_mean"])
    x = jnp.cumsum(jax.random.normal(jax.random.key(1), (2, 32, 3)), axis=1)
    mean, _ = TimerXL(MODEL).apply({"params": params}, x)
    last = np.repeat(x[:, 7::8], 8, axis=1)
    np.testing.assert_allclose(mean, last, atol=1e-4)
    end, _ = TimerXL(MODEL).apply({"params": params}, x, last_only=True)
    np.testing.assert_allclose(end, last[:, -8:], atol=1e-4)


@pytest.mark.slow
def test_the_anchor_is_the_same_from_caches() -> None:
    """The cached process would forecast from another level than the model was trained with."""
    params = init_params(jax.random.key(0), MODEL)
    x = jnp.cumsum(jax.random.normal(jax.random.key(1), (48, 1)), axis=0)
    whole = TimerXL(MODEL).apply({"params": params}, x[None])
    process = cached_process(CachedTimerXL(MODEL), params, 8, norm="causal")
    memory = process.prepare(x[:24])
    proposals = x[24:].reshape(3, 8, 1)
    ahead, _ = process.verify(memory, process.start(memory, 4), proposals)
    for got, expected in zip((ahead.mean, ahead.logvar), whole, strict=True):
        np.testing.assert_allclose(got.reshape(-1, 1), expected[0, 16:], atol=1e-4)
