"""The packed weights of a decode, and the forms of a decode of one path."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.models import params_of
from helpers.toys import TIMER_XL

from stride_jax import DecodeConfig, decode
from stride_jax.decoding.processes import cached_process
from stride_jax.models import make_predict
from stride_jax.models.attention import TimeAttention, full_layout
from stride_jax.models.cached import CachedTimerXL
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.packed import embedded, pack, projected, rotary_order, rotated, rotation
from stride_jax.models.rotary import rotate

P = 4
CONFIG = TimerXLConfig(
    patch_len=P, d_model=16, num_heads=2, d_ff=32, num_layers=1, instance_norm="causal"
)
"""A model of one variable."""


def process_of(config: TimerXLConfig):
    """The cached process of random parameters."""
    return cached_process(CachedTimerXL(config), params_of(config), P, norm="causal")


def test_a_rotation_in_the_packed_order_is_that_of_the_module():
    """Queries and keys would be turned by other angles than the model was trained with."""
    width, positions = CONFIG.head_width, np.array([3, 0, 7, 5, 1, 2])
    x = np.random.default_rng(0).normal(size=(1, 2, 6, width)).astype(np.float32)
    expected = rotate(jnp.asarray(x), positions)[..., rotary_order(width)]
    order = jnp.asarray(x)[0, :, None][..., rotary_order(width)]  # [H, C, k, E]
    turned = rotated(order, rotation(CONFIG, positions, 1))
    np.testing.assert_allclose(turned[:, 0], expected[0], atol=1e-6)


def test_weights_have_the_dtype_they_are_computed_in():
    """Every pass would cast all weights again, and they would take twice the memory."""
    short = dataclasses.replace(CONFIG, dtype="bfloat16")
    packed = pack(short, params_of(CONFIG))
    block = packed.blocks[0]
    layers = (packed.embedding, packed.head, block.out, block.ffn_in, block.ffn_out)
    assert {x.dtype for layer in layers for x in layer} == {jnp.dtype("bfloat16")}
    assert block.norm1.scale.dtype == packed.norm.scale.dtype == jnp.float32


@pytest.mark.parametrize("precision", ["default", "highest"])
def test_all_products_have_the_precision_of_the_config(precision):
    """On a GPU some products would be rounded to 10 bits although float32 was asked for."""
    process = process_of(dataclasses.replace(CONFIG, precision=precision))
    memory = jax.eval_shape(process.prepare, jnp.zeros((2 * P, 1)))
    state = jax.eval_shape(lambda m: process.start(m, 3), memory)
    text = jax.jit(process.verify).lower(memory, state, jnp.zeros((2, P, 1))).as_text()
    products = text.count("stablehlo.dot_general")
    # embedding with query, key and value, logits and what is read of prefill and cache, output,
    # feed-forward twice, head
    assert products == 9
    assert text.count("precision = [HIGHEST, HIGHEST]") == (9 if precision == "highest" else 0)


@pytest.mark.parametrize("speculative", [pytest.param(True, marks=pytest.mark.slow), False])
def test_one_path_decodes_as_one_of_several_and_as_one_of_two_lanes(speculative):
    """A single path would get another forecast than the same path in a batch."""
    target = process_of(CONFIG)
    draft = process_of(dataclasses.replace(CONFIG, d_model=8)) if speculative else None
    context = jnp.sin(jnp.arange(5 * P))[:, None]

    def forecast(**sizes):
        config = DecodeConfig(horizon=6 * P, num_draft=2, **sizes)
        key, models = jax.random.key(3), {"target": target, "draft": draft}
        return decode(key, context, sigma=0.2, config=config, **models)

    paths, many = forecast(num_paths=2)  # the prefill is shared
    alone, one = forecast(num_paths=2, path_chunk=1)  # joined with the cache of each path
    twice, two = forecast(num_paths=1, least_lanes=2)
    once, _ = forecast(num_paths=1, least_lanes=1)
    np.testing.assert_allclose(alone, paths, atol=1e-5)
    np.testing.assert_allclose(twice, paths[:1], atol=1e-5)
    np.testing.assert_allclose(twice, once, atol=1e-5)
    np.testing.assert_array_equal(one.origin, many.origin)
    np.testing.assert_array_equal(two.origin, many.origin[:1])


def test_the_first_block_reads_tokens_through_one_product():
    """The first block's query, key and value would be those of another token."""
    config = dataclasses.replace(CONFIG, num_layers=2)
    params = params_of(config)
    packed, tokens = pack(config, params), jnp.asarray(np.random.default_rng(0).normal(size=(3, P)))
    embedding, attention = params["embedding"], params["block_0"]["attention"]
    x = tokens @ embedding["kernel"] + embedding["bias"][None]
    found, qkv = embedded(config, packed, tokens)
    np.testing.assert_allclose(found, x, atol=1e-5)
    value = x @ attention["value"]["kernel"] + attention["value"]["bias"][None]
    np.testing.assert_allclose(qkv[:, 2 * config.d_model :], value, atol=1e-5)
    first, second = packed.blocks
    assert projected(config, first, found, qkv) is qkv
    other = found @ second.qkv.kernel + second.qkv.bias[None]
    np.testing.assert_allclose(projected(config, second, found, qkv), other, atol=1e-5)


def packed_case(**changes):
    """A small model in its packed and its ordinary form, with a large head."""
    config = dataclasses.replace(TIMER_XL, instance_norm=None, **changes)
    return config, params_of(config)


def last_of(config, params, x):
    """`(packed, ordinary)` predictions after the last patch of `[L, C]`."""
    process = cached_process(CachedTimerXL(config), params, config.patch_len, norm=None)
    memory = process.prepare(x)
    none = jnp.zeros((0, config.patch_len, x.shape[1]))
    found, _ = process.verify(memory, process.start(memory, 2), none)
    return jax.tree.map(lambda z: z[0], found), make_predict(config, params)(x)


def test_a_log_variance_from_caches_has_the_limit_of_the_model():
    """A std would overflow in a decode, and not where the model was trained."""
    config, params = packed_case(head="gaussian")
    head = params["head_logvar"]
    large = {**params, "head_logvar": {**head, "bias": head["bias"] + 100}}
    x = jnp.asarray(np.random.default_rng(0).normal(size=(12, 2)), jnp.float32)
    found, expected = last_of(config, large, x)
    np.testing.assert_allclose(found.logvar, expected.logvar, rtol=1e-5)


def test_an_anchored_model_is_the_same_from_caches():
    """A model that was trained to predict the change would lose the level it changes from."""
    config, params = packed_case(anchor="last")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(12, 2)), jnp.float32)
    found, expected = last_of(config, params, x)
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-5)


def test_the_softmax_of_a_bfloat16_model_is_float32_from_caches_too():
    """Weights of a long context would be rounded to 8 bits, and not those of training."""
    config, params = packed_case(dtype="bfloat16")
    process = cached_process(CachedTimerXL(config), params, config.patch_len, norm=None)
    memory = jax.eval_shape(process.prepare, jnp.zeros((12, 1)))
    state = jax.eval_shape(lambda m: process.start(m, 3), memory)
    text = jax.jit(process.verify).lower(memory, state, jnp.zeros((2, 3, 1))).as_text()
    softmaxes = [line for line in text.splitlines() if "stablehlo.exponential" in line]
    assert softmaxes
    assert all("xf32>" in line for line in softmaxes)


def test_attention_has_a_dropout_of_its_own():
    """A model would be trained with less regularisation than its configuration says."""
    config, params = packed_case(dropout=0.5)
    layer, layout = TimeAttention(config), full_layout(config, 2, 4)
    params = {"params": params["block_0"]["attention"]}
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, config.d_model)), jnp.float32)
    plain = layer.apply(params, x, layout, True)
    found = layer.apply(params, x, layout, False, rngs={"dropout": jax.random.key(0)})
    assert not np.allclose(found, plain, atol=1e-3)
