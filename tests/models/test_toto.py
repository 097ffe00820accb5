"""Toto 1.0 against the original PyTorch code; see tools/golden_toto.py for the recording."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from golden import GOLDEN as FILES
from helpers.families import Jitted, check_refused, prepare, relative, rolled
from scipy import stats

from stride_jax import DecodeConfig, decode, last_value_draft
from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.compiled import compiled
from stride_jax.decoding.mixture import StudentMixture
from stride_jax.decoding.rules import Block, Mean, Residual
from stride_jax.errors import InputError
from stride_jax.forecasting.forecast import forecast
from stride_jax.models.toto import FAMILY
from stride_jax.models.toto.config import TotoConfig
from stride_jax.models.toto.module import init_params
from stride_jax.models.toto.params import FREQUENCIES, FUSED, PLAIN
from stride_jax.testing import check_process

GOLDEN = dict(np.load(FILES / "toto.npz"))
CASES = ("one", "padded", "constant", "several", "missing")
P, STEPS = 8, 8


def arrays() -> dict[str, np.ndarray]:
    """The recorded state dict."""
    return {k.removeprefix("toto/"): v for k, v in GOLDEN.items() if k.startswith("toto/")}


CONFIG, PARAMS = FAMILY.read(arrays())
TARGET = FAMILY.make_process(CONFIG, PARAMS)
mixtures = compiled(lambda process, context, length: process.mixtures(context, length))


def case(name: str) -> dict[str, np.ndarray]:
    """What was recorded of a case, and its `context [48, C]` and `length`: two shapes in all.

    The context is NaN where values are missing, and wild before the history.
    """
    found = {k.removeprefix(f"{name}/"): v for k, v in GOLDEN.items() if k.startswith(f"{name}/")}
    history = np.where(found["mask"], found["series"], np.nan).T
    context = np.full((48, history.shape[1]), 1e3, np.float32)
    context[48 - len(history) :] = history
    return found | {"context": context, "length": jnp.int32(len(history))}


def last(mixture: StudentMixture, count: int) -> StudentMixture:
    """The mixtures after the last `count` patches, those of the history."""
    return jax.tree.map(lambda x: x[-count:], mixture)


def as_recorded(values: jax.Array) -> np.ndarray:
    """`[N, P, C]` -> `[C, N, P]`."""
    return np.asarray(values).transpose(2, 0, 1)


def test_both_layouts_are_recognised_and_hold_the_same_parameters():
    """A released file, or one of the original without its fused kernels, would not load."""
    fused = {k.replace(PLAIN[1], FUSED[1]): v for k, v in arrays().items()}
    fused = {k.replace("mlp.0.weight", "mlp.0.w12.weight"): v for k, v in fused.items()}
    fused = {k.replace("mlp.0.bias", "mlp.0.w12.bias"): v for k, v in fused.items()}
    for layout in (arrays(), fused):
        shapes = {k: v.shape for k, v in layout.items()}
        assert FAMILY.recognises(shapes) == 1
        assert FAMILY.missing(shapes) == []
        config, params = FAMILY.read(layout)
        assert config == CONFIG
        assert jax.tree.all(jax.tree.map(np.array_equal, params, PARAMS))
    assert (CONFIG.num_heads, CONFIG.d_ff, CONFIG.num_components) == (2, 64, 3)
    expected = jax.eval_shape(lambda: init_params(jax.random.key(0), CONFIG))
    assert jax.tree.map(lambda x: x.shape, expected) == jax.tree.map(np.shape, PARAMS)


def test_the_released_sizes():
    """The defaults would not be those of the released file.

    The number follows from the shapes of the original's definition (toto-ts 0.2.0).
    """
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), TotoConfig()))
    d, ff = 768, 3072
    layer = 2 * d + (3 * d + 1) * d + 3 * d + d * d + (2 * ff + 1) * d + 2 * ff + ff * d
    ends = (64 + 1) * d + (d + 1) * 64 * d + 4 * (d + 1) * 24
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 12 * layer + ends


def test_the_number_of_heads():
    """The heads of a file without frequencies would be cut at the wrong places."""
    plain = arrays()
    del plain[FREQUENCIES]
    with pytest.raises(InputError, match=r"heads of 64 numbers cannot have \(heads of 64"):
        FAMILY.read(plain)
    config, _ = FAMILY.read(plain, num_heads=2, space_every=2)
    assert config == CONFIG
    with pytest.raises(InputError, match="num_layers 2 must be a multiple of space_every 3"):
        FAMILY.read(plain, num_heads=2, space_every=3)
    with pytest.raises(InputError, match="d_model 32 over num_heads 3"):
        FAMILY.read(plain, num_heads=3)


def test_bfloat16_arrays_stay_what_they_are():
    """A file of half the size would take the memory of a whole one."""
    half = {k: v.astype(ml_dtypes.bfloat16) for k, v in arrays().items()}
    _, params = FAMILY.read(half)
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype(ml_dtypes.bfloat16)}


NORM = "model.transformer.layers.1.norm2.scale"
BAD = {
    "missing": (lambda a: a.pop(NORM), f"{NORM} is missing"),
    "extra": (
        lambda a: a.update({"model.target_variate_label": np.zeros(32)}),
        "model.target_variate_label is unknown",
    ),
    "shape": (lambda a: a.update({NORM: np.zeros(9)}), rf"{NORM} has shape \(9,\)"),
    "nan": (lambda a: a.update({NORM: np.full(32, np.nan)}), f"{NORM} holds NaN"),
    "heads": (lambda a: a.update({FREQUENCIES: np.ones(7)}), "heads of 14 numbers cannot have"),
    "layers": (
        lambda a: [a.pop(k) for k in list(a) if "layers.1." in k],
        "it has one layer, and the last one is across variables",
    ),
    "nothing": (lambda a: a.clear(), "model.patch_embed.projection.weight is missing"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_names_the_tensor(name):
    """A truncated or foreign file would fail somewhere inside the model, or not at all."""
    check_refused(FAMILY, arrays(), *BAD[name])


def test_mixtures_after_every_patch_are_those_of_the_original():
    """The blocks, statistics, masks or heads would not be the released model's."""
    for name in CASES:
        recorded = case(name)
        mixture, padding = mixtures(TARGET, recorded["context"], recorded["length"])
        assert int(padding) == 48 - recorded["length"]
        mixture = last(mixture, recorded["mean"].shape[1])
        mean = as_recorded(mixture.mean())
        for found, expected in zip(mean, recorded["mean"], strict=True):
            assert relative(found, expected) < 1e-5, name
        for part in ("df", "loc", "scale"):
            found = np.asarray(getattr(mixture, part)).transpose(2, 0, 1, 3)  # [C, N, P, M]
            center, spread = (recorded[x][..., None, None] for x in ("center", "spread"))
            expected = recorded[part]
            if part != "df":
                expected = spread * expected + (center if part == "loc" else 0)
            for one, other in zip(found, expected, strict=True):
                assert relative(one, other) < 1e-5, (name, part)
        weights = np.exp(np.asarray(mixture.log_weights)).transpose(2, 0, 1, 3)
        np.testing.assert_allclose(weights, recorded["weights"], atol=1e-5)


def test_log_densities_are_those_of_the_original():
    """A rule would compare the draft with another density than the model's.

    Where a component has a weight below 1e-7 the original takes that number in its log density.
    """
    for name in ("one", "padded", "constant", "several"):
        recorded = case(name)
        mixture, _ = mixtures(TARGET, recorded["context"], recorded["length"])
        values = recorded["values"].transpose(1, 2, 0)  # [N, P, C]
        found = last(mixture, len(values)).log_prob(jnp.asarray(values))
        assert relative(as_recorded(found), recorded["log_prob"]) < 1e-5, name


def test_the_autoregressive_mean_path_is_that_of_the_original():
    """What is fed back, its statistics, positions or caches would not be those of the release."""
    for name in CASES:
        recorded = case(name)
        alone, _ = rolled(TARGET, recorded["context"], recorded["length"], patches=STEPS)
        found = as_recorded(alone.mean).reshape(recorded["generated"].shape)
        for one, expected in zip(found, recorded["generated"], strict=True):
            assert relative(one, expected) < 1e-5, name


def test_a_pass_of_several_patches_is_single_steps():
    """Verification would accept or refuse by other predictions than those of the target alone."""
    context = 3 + np.random.default_rng(0).normal(size=(29, 3)).astype(np.float32)
    check_process(Jitted(TARGET), jnp.asarray(context), num_draft=2, atol=1e-4)


def test_a_path_from_the_caches_is_that_of_one_pass():
    """The centre of the positions, or the bound of the statistics, would move with every pass."""
    recorded = case("several")
    context = recorded["context"]
    alone, _ = rolled(TARGET, context, recorded["length"], patches=STEPS)
    path = np.asarray(alone.mean).reshape(-1, 3)
    whole, _ = mixtures(TARGET, np.concatenate([context, path]), None)
    for part, found in zip(whole._fields, whole, strict=True):
        expected = getattr(alone.density, part)
        assert relative(found[len(context) // P - 1 : -1], expected) < 1e-5, part


def test_any_number_of_steps_and_padding():
    """A history would be cut to whole patches, its padding be seen, or change what is after it."""
    history = 3 + np.random.default_rng(1).normal(size=(21, 2)).astype(np.float32)
    long = np.concatenate([np.full((19, 2), 1e3, np.float32), history])
    limited = FAMILY.make_process(CONFIG, PARAMS, 21)
    expected, _ = mixtures(TARGET, history, None)
    for process, context, length in (
        (TARGET, long, jnp.int32(21)),
        (limited, long, None),
        (limited, long, jnp.int32(35)),
    ):
        found, _ = mixtures(process, context, length)
        for one, other in zip(found, expected, strict=True):
            assert relative(one[-3:], other) < 1e-5
    empty = prepare(TARGET, long, jnp.int32(-3))
    assert not np.any(empty.moments)
    np.testing.assert_allclose(empty.spread, np.sqrt(0.1), rtol=1e-6)


def test_a_longer_history_is_cut_to_the_limit():
    """The memory would grow with the table, far beyond what the model was shown."""
    short = dataclasses.replace(CONFIG, context_limit=20)
    process = FAMILY.make_process(short, PARAMS)
    context = np.random.default_rng(2).normal(size=(40, 1)).astype(np.float32)
    found = [prepare(process, x, None) for x in (context, context[-16:])]
    assert jax.tree.all(jax.tree.map(np.array_equal, *found))
    for wrong, message in ((0, "from 1 on"), (2.5, "whole number")):
        with pytest.raises(InputError, match=message):
            FAMILY.make_process(CONFIG, PARAMS, wrong)
    with pytest.raises(InputError, match="the context has no step"):
        TARGET.prepare(jnp.zeros((0, 1)))


CONTEXT = case("several")["context"]
DRAFT = last_value_draft(P)


def decoded(rule=None, draft=None, paths=None, sigma=1.0, patches=2):
    """`(paths, info)` of the target with or without a draft."""
    config = DecodeConfig(horizon=patches * P, num_draft=2, num_paths=paths)
    return decode(
        jax.random.key(0),
        CONTEXT[:, :1],
        target=TARGET,
        draft=draft,
        sigma=sigma,
        rule=rule,
        config=config,
    )


def test_without_tolerance_the_speculative_path_is_the_autoregressive_one():
    """Caches, statistics or feedback after a rejection would differ from the released decode."""
    alone, _ = decoded(Mean(0.0))
    both, _ = decoded(Mean(0.0), DRAFT)
    assert relative(both, alone) < 1e-5
    itself, info = decoded(Mean(1e-3), TARGET)
    assert relative(itself, alone) < 1e-5
    assert int(info.rounds) == 1


@pytest.mark.parametrize(
    "draft",
    [pytest.param(None, id="alone"), pytest.param(TARGET, id="drafted", marks=pytest.mark.slow)],
)
def test_sample_paths_follow_the_mixture(draft):
    """Paths would have a Gaussian in place of the mixture, or a draft would change them.

    Each value, in the distribution function of its step given the path before it, is uniform.
    """
    paths, info = decoded(Residual(), draft, paths=400, sigma=2.0)
    patches = np.asarray(paths).reshape(400, 2, P, 1)

    def parts(first):
        memory = TARGET.prepare(CONTEXT[:, :1])
        return TARGET.verify(memory, TARGET.start(memory, 2), first)[0].density

    density = jax.jit(jax.vmap(parts))(patches[:, :1])  # [S, 2, P, 1, M]
    df, loc, scale, log_weights = (np.asarray(x, np.float64) for x in density)
    uniform = np.sum(np.exp(log_weights) * stats.t.cdf(patches[..., None], df, loc, scale), axis=-1)
    for place in range(2):
        assert stats.kstest(uniform[:, place].ravel(), "uniform").pvalue > 1e-3
    assert (draft is None) or int(np.sum(info.accepted)) > 0


def test_a_forecast_draws_from_the_mixture():
    """The front door would standardise a history, or refuse its own rule for the model."""
    history = case("padded")["series"][0].astype(np.float64)
    found = forecast(TARGET, history, 2 * P, num_samples=0, sigma=1.0, non_negative=False)
    expected = case("padded")["generated"][0, : 2 * P]
    assert relative(found.mean, expected) < 1e-4
    pair = Pair(TARGET, DRAFT)
    drawn = forecast(pair, [history, history[:5]], P, num_draft=1)
    assert drawn.paths.shape == (2, 100, P)
    assert drawn.reported is None
    with pytest.raises(InputError, match="rule 'block' needs Gaussian predictions, and TotoProc"):
        forecast(pair, history, P, rule=Block())


def test_a_forecast_of_several_variables():
    """Variables that are forecast together would not see each other."""
    recorded = case("several")
    history = recorded["series"].T.astype(np.float64)
    settings = {"num_samples": 0, "sigma": 1.0, "non_negative": False}
    found = forecast(TARGET, history, P, variables="joint", **settings)
    for one, expected in zip(found.mean.T, recorded["generated"], strict=True):
        assert relative(one, expected[:P]) < 1e-4
    apart = forecast(TARGET, history, P, **settings)
    assert relative(apart.mean[:, 0], recorded["generated"][0, :P]) > 1e-2


def test_products_have_the_precision_of_the_original():
    """On a GPU they would be rounded to 10 binary digits (TF32), unlike the original's."""
    program = str(jax.make_jaxpr(TARGET.prepare)(CONTEXT))
    assert "Precision.HIGHEST" in program
    assert "precision=None" not in program
