"""Distillation of a target into a linear draft: no gradient, one ridge regression."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.cluster.vq import kmeans2
from tqdm import tqdm

from stride_jax.checkpoints import checkpoint as checkpoints
from stride_jax.checkpoints.build import make_linear_draft
from stride_jax.checkpoints.checkpoint import Checkpoint, LinearCheckpoint, check_trained_context
from stride_jax.checkpoints.run_store import RunStore
from stride_jax.config import check_context, require
from stride_jax.data.gaps import Gaps
from stride_jax.data.splits import ForecastData
from stride_jax.data.windows import Windows, make_windows
from stride_jax.decoding.drafts import propose
from stride_jax.decoding.linear_draft import (
    Gate,
    LinearDraft,
    gate_weights,
    level_of,
    window_features,
)
from stride_jax.models.cached import pinned
from stride_jax.models.linear import LinearConfig
from stride_jax.models.timer_xl import Params, make_predict
from stride_jax.sharding import first_process
from stride_jax.training.config import DistillConfig
from stride_jax.training.ridge import Choice, Rows, choose, sums_of

BATCH = 64
"""Windows that the target labels at once."""
HELD_OUT = 0.25
"""Validation windows over training windows, at most."""
LEAST_VARIANCE = 1e-6
"""Added to the variance of a window, in units of the standardised series."""


class Source(NamedTuple):
    """The windows of one split, in the order they are taken.

    Attributes:
        values: the series.
        windows: contexts of the split.
        order: `[N]`, their numbers.
    """

    values: jax.Array | Gaps
    windows: Windows
    order: np.ndarray

    def batches(self) -> Iterator[jax.Array]:
        """Contexts `[<= BATCH, L0, C]`."""
        for start in range(0, len(self.order), BATCH):
            number = jnp.asarray(self.order[start : start + BATCH])
            yield self.windows.gather(self.values, number)

    def split(self, share: float) -> tuple[Source, Source]:
        """The first windows, and the last ones, of which there are `share` of all."""
        cut = max(1, len(self.order) - round(share * len(self.order)))
        first, last = self.order[:cut], self.order[cut:]
        return self._replace(order=first), self._replace(order=last)


def sources(config: DistillConfig, data: ForecastData) -> tuple[Source, Source]:
    """Training windows drawn at random, and validation windows spread over the split."""
    separate, num_vars = config.data.variables == "separate", data.values.shape[1]
    length, strides = config.data.context_len, (1, config.data.validation_stride)
    train, held_out = (
        make_windows(rows, length, num_vars, separate=separate, stride=stride)
        for rows, stride in zip(data.splits[:2], strides, strict=True)
    )
    rng = np.random.default_rng(config.run.seed)
    count = min(config.ridge.windows, train.count)
    order = rng.choice(train.count, count, replace=False)
    most = min(held_out.count, max(1, round(HELD_OUT * count)))
    # rounded to whole numbers, spread over the split, in random order so that it can be cut
    spread = np.linspace(0, held_out.count - 1, most).astype(int)
    values = data.on_device
    return Source(values, train, order), Source(values, held_out, rng.permutation(spread))


class Teacher(NamedTuple):
    """The target as a teacher of windows; a pytree.

    Attributes:
        predict: `window [L0, C] -> PatchDistribution` of the next patch.
        gate: of a mixture, or None.
        sigma: std of the noise in proposals.
    """

    predict: jax.tree_util.Partial
    gate: Gate | None
    sigma: jax.Array


def labelled(
    teacher: Teacher,
    source: Source,
    key: jax.Array,
    *,
    model: LinearConfig,
    num_draft: int,
    draft: LinearDraft | None = None,
) -> Iterator[Rows]:
    """Rows of the windows of a source, with the target's means as labels.

    Args:
        teacher: labels the windows.
        source: the windows.
        key: of the proposals; folded, not consumed.
        model: sizes.
        num_draft: K, the most proposals at the end of a context.
        draft: ends the contexts with 1 to K of its proposals; None leaves them as they are.
    """
    quiet = None if first_process() else True
    with tqdm(total=len(source.order), disable=quiet, unit="window") as bar:
        for number, contexts in enumerate(source.batches()):
            batch_key = jax.random.fold_in(key, number)
            yield _rows(teacher, draft, contexts, batch_key, model=model, num_draft=num_draft)
            bar.update(len(contexts))


@jax.jit(static_argnames=("model", "num_draft"))
def _rows(
    teacher: Teacher,
    draft: LinearDraft | None,
    contexts: jax.Array,
    key: jax.Array,
    *,
    model: LinearConfig,
    num_draft: int,
) -> Rows:
    """The rows of contexts `[B, L0, C]`; the maps are weighted by the context without proposals."""
    first = contexts.shape[1] - model.context_len
    weights = jax.vmap(lambda window: map_weights(teacher.gate, window, model))(contexts[:, first:])
    if draft is not None:
        keys = jax.random.split(key, len(contexts))
        contexts = jax.vmap(
            lambda context, key: with_proposals(draft, key, context, teacher.sigma, num_draft)
        )(contexts, keys)
    labels = jax.vmap(lambda window: teacher.predict(window).mean)(contexts)  # [B, P, C]
    window = contexts[:, first:]
    level = level_of(window, model.level)  # [B, 1, C]
    scale = jnp.sqrt(jnp.var(window, axis=1) + LEAST_VARIANCE)  # [B, C]

    def relative(values: jax.Array) -> jax.Array:
        # [B, T, C] -> [B, C, T]
        return ((values - level) / scale[:, None]).transpose(0, 2, 1)

    return Rows(relative(window), relative(labels), scale, weights)


def map_weights(gate: Gate | None, window: jax.Array, model: LinearConfig) -> jax.Array:
    """Weights of the maps for each variable of a window `[L, C]`, `[C, M]`."""
    return gate_weights(gate, window) if model.num_vars is None else jnp.eye(model.num_vars)


def with_proposals(
    draft: LinearDraft, key: jax.Array, context: jax.Array, sigma: jax.Array, num_draft: int
) -> jax.Array:
    """A context `[L0, C]` that ends with 1 to K proposals, each number as likely.

    Consumes the key.
    """
    noise_key, count_key = jax.random.split(key)
    shape = (num_draft, draft.patch_len, context.shape[1])
    noise, scale = jax.random.normal(noise_key, shape), jnp.broadcast_to(sigma, shape[1:])
    memory = draft.prepare(context)
    state = draft.start(memory, num_draft)
    proposals, _ = propose(draft, memory, state, noise, scale, num_draft, learned=False)
    # [K, P, C] -> [K * P, C]
    grown = jnp.concatenate([context, proposals.patches.reshape(-1, context.shape[1])])
    count = jax.random.randint(count_key, (), 1, num_draft + 1)
    return jax.lax.dynamic_slice_in_dim(grown, count * draft.patch_len, len(context))


def fit_gate(source: Source, model: LinearConfig, seed: int) -> Gate | None:
    """The gate of M k-means clusters of windows, by their features; None without a mixture.

    Its weights are the probabilities of the clusters, each a Gaussian of unit variance in the
    standardised features.

    Raises:
        InputError: not more windows than maps.
    """
    if model.num_maps == 1:
        return None
    features = jax.jit(jax.vmap(window_features))
    parts = [
        features(contexts[:, contexts.shape[1] - model.context_len :])
        for contexts in source.batches()
    ]
    rows = np.concatenate([np.asarray(part, np.float64) for part in parts])
    rows = rows.reshape(-1, rows.shape[-1])  # [N, C, F] -> [N * C, F]
    require(
        len(rows) > model.num_maps,
        f"{len(rows)} windows are too few for {model.num_maps} maps; lower ridge.num_maps, or give "
        "a longer series.",
    )
    mean, std = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    standard = (rows - mean[None]) / std[None]
    centers, _ = kmeans2(standard, model.num_maps, minit="++", rng=seed)  # [M, F]
    # log density of a cluster at x, without what all have in common: x . center - |center|^2 / 2
    kernel = centers.T / std[:, None]
    bias = -0.5 * np.square(centers).sum(axis=1) - (mean / std) @ centers.T
    return Gate(jnp.asarray(kernel, jnp.float32), jnp.asarray(bias, jnp.float32))


def checkpoint_of(model: LinearConfig, maps: np.ndarray, gate: Gate | None) -> LinearCheckpoint:
    """The checkpoint of maps `[M, L, P]` and their gate."""
    # [1, L, P] -> [L, P] for one map, else as it is
    params: Params = {"maps": jnp.asarray(maps.reshape(model.shapes["maps"]), jnp.float32)}
    if gate is not None:
        params |= {"gate_kernel": gate.kernel, "gate_bias": gate.bias}
    return LinearCheckpoint(model, params)


def linear_config(config: DistillConfig, target: Checkpoint, num_vars: int) -> LinearConfig:
    """The sizes of the draft that a config asks for."""
    maps = config.ridge.maps
    return LinearConfig(
        target.model.patch_len,
        config.draft_context_len or config.data.context_len,
        level=config.ridge.level,
        num_vars=num_vars if maps == "per_variable" else None,
        num_maps=config.ridge.num_maps if maps == "mixture" else 1,
    )


def check_linear(config: DistillConfig, target: Checkpoint) -> None:
    """Raises InputError unless a linear draft can be fitted with these settings."""
    check_context(config.data.context_len, target.model.patch_len)
    check_trained_context(target, config.data.context_len)
    require(
        config.data.synthetic_share == 0,
        "the objective ridge takes windows of a series alone; set data.synthetic_share 0.",
    )
    require(
        config.data.mirrored_share == 0,
        "the objective ridge takes windows as they are; set data.mirrored_share 0.",
    )
    require(
        not config.run.distributed,
        "a ridge regression runs in one process; leave out run.distributed.",
    )
    require(not config.run.resume, "a ridge regression has no steps to resume; leave out --resume.")
    require(
        not config.init_from,
        f"a ridge regression starts from nothing; leave out init_from {config.init_from!r}.",
    )


def check_unused(out: str) -> None:
    """Raises InputError where a directory, whose lock is held, has the files of a run."""
    for name in ("best", "last", "log.jsonl"):
        require(
            not (Path(out) / name).exists(),
            f"{out!r} already holds a run; give another --run.out.",
        )


def distill_linear(
    config: DistillConfig, data: ForecastData, target: Checkpoint
) -> LinearCheckpoint:
    """Fits a linear draft to a target's one-patch means; two passes over the windows.

    A share `on_policy` of the windows ends with proposals of a first draft, which is fitted to the
    others.

    Args:
        config: everything static; see its `ridge`.
        data: the series.
        target: the teacher.

    Returns:
        The draft; it is in `config.run.out`, with a log of both fits.

    Raises:
        InputError: the directory is in use, holds a run or cannot be written to, which is noticed
            before the fit; or see `check_linear`, `LinearConfig`, `fit_gate`.
    """
    check_linear(config, target)
    with RunStore(Path(config.run.out)):  # its lock, from the first look to the last line
        check_unused(config.run.out)
        fitted, records = fit_linear(config, data, target)
        write(Path(config.run.out), fitted, records)
    return fitted


def fit_linear(
    config: DistillConfig, data: ForecastData, target: Checkpoint
) -> tuple[LinearCheckpoint, list[Choice]]:
    """The draft of `distill_linear`, and the choice of each of its fits; writes nothing.

    Raises:
        InputError: see `LinearConfig`, `fit_gate`.
    """
    num_vars = 1 if config.data.variables == "separate" else data.values.shape[1]
    model = linear_config(config, target, num_vars)
    train, held_out = sources(config, data)

    # The teacher: the target, and the gate that tells the windows apart.
    gate = fit_gate(train, model, config.run.seed)
    params = jax.tree.map(jnp.asarray, target.params)
    predict = make_predict(pinned(target.model, config.data.context_len), params)
    teacher = Teacher(predict, gate, jnp.float32(config.sigma))
    keys = jax.random.split(jax.random.key(config.run.seed))
    options: dict[str, Any] = {"model": model, "num_draft": config.num_draft}

    # Off policy: windows of the series.
    parts = [source.split(config.on_policy) for source in (train, held_out)]
    sums = sums_of(labelled(teacher, parts[0][0], keys[0], **options))
    scored = list(labelled(teacher, parts[1][0], keys[1], **options))
    records = [choose(sums, scored, config.ridge.regularisation, config.sigma)]

    # On policy: the other windows end with proposals of the draft so far.
    if len(parts[0][1].order):
        first = checkpoint_of(model, records[0].maps, gate)
        options["draft"] = make_linear_draft(first, num_vars, model.patch_len)
        sums = sums_of(labelled(teacher, parts[0][1], keys[0], **options), sums)
        scored += labelled(teacher, parts[1][1], keys[1], **options)
        records.append(choose(sums, scored, config.ridge.regularisation, config.sigma))

    return checkpoint_of(model, records[-1].maps, gate), records


def write(out: Path, fitted: LinearCheckpoint, records: list[Choice]) -> None:
    """Writes the draft to `out/best` and adds a line for each fit to `out/log.jsonl`."""
    checkpoints.save(out / "best", fitted)
    with (out / "log.jsonl").open("a") as file:
        for choice in records:
            line = {name: value for name, value in choice._asdict().items() if name != "maps"}
            file.write(json.dumps(line) + "\n")
