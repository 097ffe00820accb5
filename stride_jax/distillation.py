"""Distillation: a small draft learns what the target says of the same context."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from stride_jax import losses
from stride_jax.augmentation import augment
from stride_jax.checkpoints import Checkpoint, check_trained_context
from stride_jax.config import DistillConfig, TimerXLConfig, check_context
from stride_jax.config_json import to_dict
from stride_jax.data.splits import ForecastData
from stride_jax.errors import InputError
from stride_jax.models.timer_xl import Params, TimerXL, init_params, make_predict
from stride_jax.trainer import Trainer
from stride_jax.training import Metrics, Task, training_windows


def draft_config(config: DistillConfig, target: TimerXLConfig) -> TimerXLConfig:
    """The new draft's config: the target's, scaled, with the wanted head and dropout."""
    scaled = target.scaled(config.factor)
    return dataclasses.replace(
        scaled, head=config.head, dropout=config.dropout, output_patches=config.output_patches
    )


def several_patches(
    out: jax.Array, teacher: jax.Array, patch_len: int, count: int
) -> tuple[jax.Array, jax.Array]:
    """Pairs what a multi-patch draft says with what the teacher says of the same patches.

    Position n forecasts the patches n + 1, ..., n + M; the teacher's forecast of patch n + m stands
    at its own position n + m - 1, where it has seen the true patches before.

    Args:
        out: `[B, N * M * P, C]`.
        teacher: `[B, N * P, C]`.
        patch_len: P.
        count: M; 1 gives both back.

    Returns:
        Two arrays `[B, R * P, C]`, R = N + (N - 1) + ... over the M offsets.
    """
    batch, _, num_vars = out.shape
    # [B, N * M * P, C] -> [B, N, M, P, C]
    split = out.reshape(batch, -1, count, patch_len, num_vars)
    ours = [split[:, : split.shape[1] - m, m] for m in range(count)]
    theirs = [teacher[:, m * patch_len :] for m in range(count)]
    flat = [x.reshape(batch, -1, num_vars) for x in ours]  # [B, N - m, P, C] -> steps
    return jnp.concatenate(flat, axis=1), jnp.concatenate(theirs, axis=1)


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

    The validation error is taken on the last patch of real windows, where decoding starts.
    """
    length, patch_len = config.data.context_len, target.model.patch_len
    short = config.draft_context_len or length
    student, teacher = TimerXL(draft), TimerXL(target.model)
    teacher_params = jax.tree.map(jnp.asarray, target.params)

    def teacher_mean(x: jax.Array, key: jax.Array, quiet: bool = False) -> jax.Array:
        noisy = config.teacher_dropout and not quiet
        rngs = {"dropout": key} if noisy else {}
        out = teacher.apply({"params": teacher_params}, x, deterministic=not noisy, rngs=rngs)
        mean = out[0] if isinstance(out, tuple) else out
        return jax.lax.stop_gradient(mean)

    def loss(params: Params, windows: jax.Array, key: jax.Array) -> tuple[jax.Array, Metrics]:
        policy_key, teacher_key, dropout_key, noise_key = jax.random.split(key, 4)
        if config.augment > 0:
            windows = augment(jax.random.fold_in(key, 4), windows, config.augment)
        x, truth = windows[:, :length], windows[:, patch_len:]
        if config.on_policy > 0:
            x = on_policy_contexts(policy_key, windows, draft, params, config, short)
        rngs = {"dropout": dropout_key}
        last = slice(length - short, None)
        out = student.apply({"params": params}, x[:, last], deterministic=False, rngs=rngs)
        said, real = teacher_mean(x, teacher_key)[:, last], truth[:, last]
        pair = functools.partial(several_patches, patch_len=patch_len, count=draft.output_patches)
        ours = jax.tree.map(lambda z: pair(z, said)[0], out)
        first = out[0] if isinstance(out, tuple) else out
        return objective(config, noise_key, ours, pair(first, said)[1], pair(first, real)[1])

    def validation_error(params: Params, windows: jax.Array) -> jax.Array:
        x, ahead = windows[:, :length], (draft.output_patches - 1) * patch_len
        ours = jax.vmap(make_predict(draft, params))(x[:, length - short : length - ahead]).mean
        if ahead:  # the teacher's forecasts of the last M patches, each given what came before
            theirs = teacher_mean(x, jax.random.key(0), quiet=True)[:, -ahead - patch_len :]
        else:
            theirs = jax.vmap(make_predict(target.model, teacher_params))(x).mean
        return jnp.mean(jnp.square(ours - theirs), axis=(1, 2))

    train, validation = training_windows(config.data, data, patch_len)
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
    if model.output_patches > 1 and config.on_policy > 0:
        raise InputError("a multi-patch draft never sees its own proposals; set on_policy 0.")
    seen = config.draft_context_len or config.data.context_len
    if seen <= (model.output_patches - 1) * model.patch_len:
        raise InputError(
            f"a context of {seen} steps is too short for output_patches {model.output_patches}: "
            f"it needs {model.output_patches} patches of {model.patch_len} steps."
        )
    if config.objective == "kl_mse" and config.on_policy > 0:
        raise InputError(
            "kl_mse scores against the truth, which a context with proposals does not have; set "
            "on_policy 0."
        )
    params = init_params(jax.random.key(config.run.seed), model) if init is None else init.params
    task = distillation_task(config, data, target, model)
    return Trainer(task, config.optim, config.run, params, data.values, to_dict(config)).fit()
