"""Distillation: a small draft learns what the target says of the same context."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from stride_jax.checkpoints.checkpoint import Checkpoint, check_trained_context
from stride_jax.config import check_context, to_dict
from stride_jax.data.splits import ForecastData
from stride_jax.errors import InputError
from stride_jax.models.cached import cacheable, pinned
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import Params, TimerXL, init_params, make_predict
from stride_jax.training import losses
from stride_jax.training.augmentation import augment
from stride_jax.training.config import DistillConfig
from stride_jax.training.loop import Trainer
from stride_jax.training.step import Metrics, Task, training_windows


def following(teacher: jax.Array, patch_len: int, count: int) -> jax.Array:
    """What a teacher says of the M patches after each position, as a multi-patch draft lays it out.

    The teacher's forecast of patch n + m stands at its own position n + m - 1, where it has seen
    the patches before.

    Args:
        teacher: `[B, (N + M - 1) * P, C]`, a patch at each position.
        patch_len: P.
        count: M; 1 gives the array back.

    Returns:
        `[B, N * M * P, C]`: at each of N positions the patches n + 1, ..., n + M.
    """
    batch, _, num_vars = teacher.shape
    # [B, (N + M - 1) * P, C] -> [B, N + M - 1, P, C]
    patches = teacher.reshape(batch, -1, patch_len, num_vars)
    num = patches.shape[1] - count + 1
    ahead = jnp.stack([patches[:, m : m + num] for m in range(count)], axis=2)
    return ahead.reshape(batch, -1, num_vars)  # [B, N, M, P, C] -> [B, N * M * P, C]


@dataclass(frozen=True)
class Teacher:
    """A target that labels series for a draft of M patches at once.

    For M > 1 it sees context and patches in one pass, as its cached process does; with window
    normalisation the statistics are then those of the longer window, not those of the context.

    Attributes:
        model: its config, with the positions (and for M > 1 the reach) that it decodes with.
        params: its parameters; no gradient flows into them.
        dropout: whether a key turns its dropout on.
        skip: steps of its context that the draft does not see.
        count: M.
    """

    model: TimerXLConfig
    params: Params
    dropout: bool
    skip: int
    count: int

    def says(self, series: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Its mean of the M patches after each position of the draft, given those between.

        Args:
            series: `[B, L + (M - 1) * P, C]`.
            key: for its dropout; consumed.

        Returns:
            `[B, N * M * P, C]`, see `following`.
        """
        noisy = self.dropout and key is not None
        rngs = {"dropout": key} if noisy else {}
        module = TimerXL(self.model)
        out = module.apply({"params": self.params}, series, deterministic=not noisy, rngs=rngs)
        mean = out[0] if isinstance(out, tuple) else out
        seen = jax.lax.stop_gradient(mean)[:, self.skip :]
        return following(seen, self.model.patch_len, self.count)

    def says_after(
        self, context: jax.Array, proposals: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        """The same after the context alone, each patch given the proposals before it.

        Args:
            context: `[B, L, C]`.
            proposals: `[B, M * P, C]`; no gradient flows through them.
            key: for its dropout; consumed.

        Returns:
            `[B, M * P, C]`.
        """
        between = jax.lax.stop_gradient(proposals)[:, : -self.model.patch_len]
        series = jnp.concatenate([context, between], axis=1)
        return self.says(series, key)[:, -proposals.shape[1] :]


def draft_config(config: DistillConfig, target: TimerXLConfig) -> TimerXLConfig:
    """The new draft's config: the target's, scaled, with the wanted head and dropout."""
    scaled = target.scaled(config.factor)
    return dataclasses.replace(
        scaled, head=config.head, dropout=config.dropout, output_patches=config.output_patches
    )


def objective(
    config: DistillConfig,
    key: jax.Array,
    out: jax.Array | tuple[jax.Array, jax.Array],
    teacher: jax.Array,
    truth: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """The distillation loss of the draft's output at all positions.

    Args:
        config: objective and weights.
        key: for the teacher noise of nll; consumed.
        out: the draft's mean `[B, L, C]`, or `(mean, logvar)`.
        teacher: the target's mean, the same shape.
        truth: the series' next values, the same shape; used by kl_mse.

    Returns:
        `(loss, metrics)`; the metric `gap` is the RMS distance of the means.
    """
    mean, logvar = out if isinstance(out, tuple) else (out, None)
    gap = {"gap": jnp.sqrt(losses.mse(mean, teacher))}
    if config.objective == "mean":
        return losses.mse(mean, teacher), gap
    if logvar is None:
        raise InputError(f"objective {config.objective!r} needs a draft with head 'gaussian'.")
    regulariser = config.variance_reg * losses.variance_regulariser(logvar)
    if config.objective == "nll":
        noise = config.teacher_noise * jax.random.normal(key, teacher.shape)
        return losses.gaussian_nll(mean, logvar, teacher + noise) + regulariser, gap
    kl = losses.gaussian_kl(teacher, config.sigma, mean, logvar)
    return kl + config.mse_weight * losses.mse(mean, truth) + regulariser, gap


def on_policy_contexts(
    key: jax.Array,
    windows: jax.Array,
    draft: TimerXLConfig,
    params: Params,
    config: DistillConfig,
    context_len: int,
) -> jax.Array:
    """Contexts that end with 0 to K of the draft's own proposals, as it meets them in decoding.

    Args:
        key: consumed.
        windows: `[B, L + P, C]` real contexts (the last patch is not used).
        draft: the draft's config.
        params: its parameters; no gradient flows through the proposals.
        config: on_policy, num_draft, sigma.
        context_len: steps the draft sees.

    Returns:
        `[B, L, C]`. A share `on_policy` of the series ends with 1 to K proposals, equally likely.
    """
    length = config.data.context_len
    context = windows[:, :length]
    share_key, count_key, noise_key = jax.random.split(key, 3)
    predict = jax.vmap(make_predict(draft, jax.lax.stop_gradient(params)))

    def step(grown: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean = predict(grown[:, grown.shape[1] - context_len :]).mean
        patch = mean + config.sigma * jax.random.normal(key, mean.shape)
        return jnp.concatenate([grown, patch], axis=1)[:, draft.patch_len :], patch

    keys = jax.random.split(noise_key, config.num_draft)
    _, patches = jax.lax.scan(step, context, keys)  # [K, B, P, C]
    patches = patches.transpose(1, 0, 2, 3).reshape(context.shape[0], -1, context.shape[2])
    grown = jnp.concatenate([context, patches], axis=1)  # [B, L + K * P, C]
    count = jax.random.randint(count_key, (len(context),), 1, config.num_draft + 1)
    chosen = jax.random.bernoulli(share_key, config.on_policy, (len(context),))
    start = jnp.where(chosen, count, 0) * draft.patch_len

    def cut(series: jax.Array, row: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(series, (row, 0), (length, series.shape[1]))

    return jax.vmap(cut)(grown, start)


def distillation_task(
    config: DistillConfig, data: ForecastData, target: Checkpoint, draft: TimerXLConfig
) -> Task:
    """The draft's problem: agree with the target; validated by the squared distance of the means.

    A multi-patch draft learns, at each position, what the target says of the next M patches given
    the true ones between, and with weight `on_policy`, at the last position, what the target says
    of them given the draft's own proposals, as in decoding; its target must be one with caches.

    The validation error is taken after the last patch of real contexts, where decoding starts, on
    all the patches that the draft proposes there.
    """
    length, patch_len = config.data.context_len, target.model.patch_len
    short, ahead = config.draft_context_len or length, draft.output_patches * patch_len
    several = draft.output_patches > 1
    num_vars = 1 if config.data.variables == "separate" else data.values.shape[1]
    seen_as = cacheable if several else pinned  # what is labelled is longer than a window
    teacher = Teacher(
        seen_as(target.model, length, num_vars),
        jax.tree.map(jnp.asarray, target.params),
        config.teacher_dropout,
        length - short,
        draft.output_patches,
    )

    def loss(params: Params, windows: jax.Array, key: jax.Array) -> tuple[jax.Array, Metrics]:
        policy_key, teacher_key, dropout_key, noise_key = jax.random.split(key, 4)
        if config.augment > 0:
            windows = augment(jax.random.fold_in(key, 4), windows, config.augment)
        x, between = windows[:, :length], windows[:, length:-patch_len]
        if config.on_policy > 0 and not several:
            x = on_policy_contexts(policy_key, windows, draft, params, config, short)
        rngs, seen = {"dropout": dropout_key}, x[:, length - short :]
        out = TimerXL(draft).apply({"params": params}, seen, deterministic=False, rngs=rngs)
        labels = teacher.says(jnp.concatenate([x, between], axis=1), teacher_key)
        real = windows[:, length - short + patch_len :]
        truth = following(real, patch_len, draft.output_patches)
        total, metrics = objective(config, noise_key, out, labels, truth)
        if config.on_policy == 0 or not several:
            return total, metrics
        last = jax.tree.map(lambda z: z[:, -ahead:], out)
        mean = last[0] if isinstance(last, tuple) else last
        proposals = mean + config.sigma * jax.random.normal(policy_key, mean.shape)
        labels = teacher.says_after(x, proposals, jax.random.fold_in(teacher_key, 1))
        own_key = jax.random.fold_in(noise_key, 1)
        own, metrics = objective(config, own_key, last, labels, truth[:, -ahead:])
        return (1 - config.on_policy) * total + config.on_policy * own, metrics

    def validation_error(params: Params, windows: jax.Array) -> jax.Array:
        x = windows[:, :length]
        ours = jax.vmap(make_predict(draft, params))(x[:, length - short :]).mean
        if several:
            theirs = teacher.says_after(x, ours)
        else:
            theirs = jax.vmap(make_predict(target.model, teacher.params))(x).mean
        return jnp.mean(jnp.square(ours - theirs), axis=(1, 2))

    train, validation = training_windows(config.data, data, ahead)
    return Task(draft, short, train, validation, loss, validation_error)


def distill(
    config: DistillConfig, data: ForecastData, target: Checkpoint, init: Checkpoint | None = None
) -> Checkpoint:
    """Distils the target into a draft.

    Args:
        config: everything static.
        data: see `data.splits.prepare`.
        target: the teacher.
        init: a pretrained draft; None for new parameters.

    Returns:
        The last parameters; the ones closest to the target on validation are in `config.run.out`.

    Raises:
        InputError: contexts or patch lengths that do not fit, kl_mse on-policy, or see `Trainer`.
    """
    if init is None:
        model = draft_config(config, target.model)
    else:
        model = dataclasses.replace(init.model, dropout=config.dropout)
    check_context(config.data.context_len, target.model.patch_len)
    check_trained_context(target, config.data.context_len)
    check_context(config.draft_context_len or config.data.context_len, model.patch_len)
    if model.patch_len != target.model.patch_len:
        raise InputError(
            f"draft and target must share a patch length, got {model.patch_len} and "
            f"{target.model.patch_len}."
        )
    if config.objective == "kl_mse" and config.on_policy > 0:
        raise InputError(
            "kl_mse scores against the truth, which a context with proposals does not have; set "
            "on_policy 0."
        )
    params = init_params(jax.random.key(config.run.seed), model) if init is None else init.params
    task = distillation_task(config, data, target, model)
    return Trainer(task, config.optim, config.run, params, data.values, to_dict(config)).fit()
