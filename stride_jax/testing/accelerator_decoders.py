"""The decoders that are measured on an accelerator, and what they decode.

`testing.accelerator` times all of them, `tools/call_costs.py` a few in several ways.
"""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp

from stride_jax.decoding.types import DecodeConfig
from stride_jax.evaluation.bench import Batch, Decoder, Label
from stride_jax.evaluation.config import AcceleratorConfig
from stride_jax.evaluation.job_file import Job
from stride_jax.evaluation.latency import AcceptAll
from stride_jax.evaluation.programs import CONTEXT, PATCH_LEN, Setting, make, untrained_target
from stride_jax.evaluation.subject import (
    build,
    load,
    parse_rules,
    speculative,
    target_only,
    timing_batches,
)


def untrained_decoders(config: AcceleratorConfig, job: Job) -> tuple[list[Decoder], list[Batch]]:
    """The decoders of an untrained pair, the target alone first, and what they decode.

    Every proposal is accepted. The batches have one context and other keys.

    Args:
        config: its d_model, patches, repeats and seed count.
        job: `layers`, `num_vars`, `batch`, `dtype`, and `drafts`, pairs of a kind and K.
    """
    batch, horizon, sigma = job["batch"], config.patches * PATCH_LEN, jnp.float32(1)
    settings = [
        Setting(
            layers=job["layers"],
            d_model=config.d_model,
            num_vars=job["num_vars"],
            batch=batch,
            num_draft=min(num_draft, config.patches),
            draft=kind,
            dtype=job["dtype"],
        )
        for kind, num_draft in job["drafts"]
    ]
    checkpoint = untrained_target(settings[0])
    pair = make(settings[0], checkpoint)
    # The packed targets that the other drafts are built with are let go.
    drafts = [pair.draft, *(make(other, checkpoint).draft for other in settings[1:])]

    # No path ends before the others, so there is nothing to go on with in a smaller batch.
    plain = DecodeConfig(horizon, 0, num_paths=1, compactions=0)
    decoders = [Decoder(pair.target, None, sigma, None, plain, Label("cached"))]
    for setting, draft in zip(settings, drafts, strict=True):
        sizes = dataclasses.replace(plain, num_draft=setting.num_draft)
        label = Label("cached", setting.draft)
        decoders.append(Decoder(pair.target, draft, sigma, AcceptAll(), sizes, label))
    key = jax.random.key(config.setup.seed)
    shape = (batch, CONTEXT * PATCH_LEN, job["num_vars"])
    context, truth = jax.random.normal(key, shape), jnp.zeros((batch, horizon, job["num_vars"]))
    batches = [
        Batch(jax.random.fold_in(key, n), context, truth, jnp.arange(batch), jnp.ones(batch))
        for n in range(config.repeats + 1)
    ]
    return decoders, batches


def trained_decoders(config: AcceleratorConfig, job: Job) -> tuple[list[Decoder], list[Batch]]:
    """The decoders of the trained pair, the target alone first, and windows for them.

    Each draft comes with all rules, in the order of the config.

    Args:
        config: its setup, rules, K of this pair and repeats count.
        job: `horizon` and `batch`.
    """
    setup, horizon = config.setup, job["horizon"]
    subject = build(setup, load(setup), [config.pair_num_draft])
    patches = -(-horizon // subject.target.patch_len)
    num_draft = max(1, min(config.pair_num_draft, patches - 1))  # the last patch is the target's
    sizes = DecodeConfig(horizon, num_draft, num_paths=1)
    cells = itertools.product(setup.drafts, parse_rules(config.rules, 1))
    decoders = [target_only(subject, sizes, subject.sigma)]
    decoders += [speculative(subject, sizes, subject.sigma, name, rule) for name, rule in cells]
    windows = subject.windows(horizon)
    return decoders, timing_batches(subject, windows, horizon, job["batch"], config.repeats)
