"""Distillation: a small draft learns the forecasts of a target from the same contexts."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from stride_jax.checkpoints.checkpoint import Checkpoint, check_trained_context
from stride_jax.config import check_context, to_dict
from stride_jax.data.splits import ForecastData
from stride_jax.errors import InputError
from stride_jax.models.cached import cacheable, pinned
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import Params, TimerXL, init_params, make_predict
from stride_jax.training.augmentation import augment
from stride_jax.training.config import DistillConfig
from stride_jax.training.loop import run_training
from stride_jax.training.objectives import objective, window_error
from stride_jax.training.resume import TEACHER, fingerprint
from stride_jax.training.step import Metrics, Task, training_windows, with_changed_windows
from stride_jax.training.teacher import Output, Teacher, following, mean_of


def draft_config(config: DistillConfig, target: TimerXLConfig) -> TimerXLConfig:
    """The new draft's config: the target's, scaled, with the layers, head and dropout asked for."""
    scaled = target.scaled(config.factor)
    return dataclasses.replace(
        scaled,
        num_layers=config.num_layers or scaled.num_layers,
        head=config.head,
        dropout=config.dropout,
        output_patches=config.output_patches,
    )


def on_policy_contexts(
    key: jax.Array,
    windows: jax.Array,
    draft: TimerXLConfig,
    params: Params,
    config: DistillConfig,
    context_len: int,
) -> jax.Array:
    """Contexts that end with 0 to K proposals of the draft, as in decoding.

    Args:
        key: Consumed.
        windows: `[B, L + P, C]` real contexts (the last patch is not used).
        draft: The draft's config.
        params: Its parameters; no gradient flows through the proposals.
        config: on_policy, num_draft, sigma.
        context_len: Steps the draft sees.

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
    # how many proposals each series ends with
    count = jax.random.randint(count_key, (len(context),), 1, config.num_draft + 1)
    on_policy = jax.random.bernoulli(share_key, config.on_policy, (len(context),))
    start = jnp.where(on_policy, count, 0) * draft.patch_len

    def cut(series: jax.Array, row: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(series, (row, 0), (length, series.shape[1]))

    return jax.vmap(cut)(grown, start)


def augmented(config: DistillConfig, key: jax.Array, windows: jax.Array) -> jax.Array:
    """The windows, a share `config.augment` of them replaced; `key` is folded, not consumed."""
    if config.augment == 0:
        return windows
    return augment(jax.random.fold_in(key, 4), windows, config.augment)


def run_draft(draft: TimerXLConfig, params: Params, context: jax.Array, key: jax.Array) -> Output:
    """The draft's output at all positions, with dropout; consumes the key."""
    rngs = {"dropout": key}
    out: Output
    out = TimerXL(draft).apply({"params": params}, context, deterministic=False, rngs=rngs)
    return out


def next_patch_distillation(
    config: DistillConfig, data: ForecastData, target: Checkpoint, draft: TimerXLConfig
) -> Task:
    """The task of a draft of one patch: agree with the target at every position.

    A share `on_policy` of the contexts ends with proposals of the draft. Validated after the last
    patch of real contexts, where decoding starts, see `objectives.window_error`.
    """
    length, patch_len = config.data.context_len, target.model.patch_len
    short = config.draft_context_len or length
    model = pinned(target.model, length)
    weights = jax.tree.map(jnp.asarray, target.params)
    teacher = Teacher(model, weights, config.teacher_dropout, length - short, count=1)

    def loss(params: Params, windows: jax.Array, key: jax.Array) -> tuple[jax.Array, Metrics]:
        policy_key, teacher_key, dropout_key, noise_key = jax.random.split(key, 4)
        windows = augmented(config, key, windows)
        context = windows[:, :length]
        if config.on_policy > 0:
            context = on_policy_contexts(policy_key, windows, draft, params, config, short)
        out = run_draft(draft, params, context[:, length - short :], dropout_key)
        labels = teacher.labels(context, teacher_key)
        truth = windows[:, length - short + patch_len :]
        return objective(config, noise_key, out, labels, truth, patch_len)

    def validation_error(params: Params, windows: jax.Array) -> jax.Array:
        context = windows[:, :length]
        proposals = jax.vmap(make_predict(draft, params))(context[:, length - short :]).mean
        labels = jax.vmap(make_predict(target.model, weights))(context)
        output = labels.mean if labels.logvar is None else (labels.mean, labels.logvar)
        return window_error(config, proposals, output, patch_len)

    train, validation = training_windows(config.data, data, patch_len)
    return _task(config, Task(draft, short, train, validation, loss, validation_error))


def multi_patch_distillation(
    config: DistillConfig, data: ForecastData, target: Checkpoint, draft: TimerXLConfig
) -> Task:
    """The task of a draft of M patches at once: agree with the target on all of them.

    The draft learns, at each position, the target's forecasts of the next M patches given the true
    ones between, and with weight `on_policy`, at the last position, those given the proposals of
    the draft, as in decoding. The target must be one with caches. Validated by the squared distance
    of the means of the M patches after real contexts.
    """
    length, patch_len = config.data.context_len, target.model.patch_len
    short, ahead = config.draft_context_len or length, draft.output_patches * patch_len
    num_vars = 1 if config.data.variables == "separate" else data.values.shape[1]
    model = cacheable(target.model, length, num_vars)  # labels a series longer than a window
    weights = jax.tree.map(jnp.asarray, target.params)
    teacher = Teacher(model, weights, config.teacher_dropout, length - short, draft.output_patches)

    def loss(params: Params, windows: jax.Array, key: jax.Array) -> tuple[jax.Array, Metrics]:
        policy_key, teacher_key, dropout_key, noise_key = jax.random.split(key, 4)
        windows = augmented(config, key, windows)
        context = windows[:, :length]
        out = run_draft(draft, params, context[:, length - short :], dropout_key)
        truth = following(windows[:, length - short + patch_len :], patch_len, teacher.count)
        labels = teacher.labels(windows[:, :-patch_len], teacher_key)
        off_policy, gap = objective(config, noise_key, out, labels, truth, patch_len)
        if config.on_policy == 0:
            return off_policy, gap

        # the patches after the context once more, each given the draft's proposals before it
        last = jax.tree.map(lambda z: z[:, -ahead:], out)
        mean = mean_of(last)
        proposals = mean + config.sigma * jax.random.normal(policy_key, mean.shape)
        labels = teacher.labels_after(context, proposals, jax.random.fold_in(teacher_key, 1))
        noise_key = jax.random.fold_in(noise_key, 1)
        on_policy, gap = objective(config, noise_key, last, labels, truth[:, -ahead:], patch_len)
        return (1 - config.on_policy) * off_policy + config.on_policy * on_policy, gap

    def validation_error(params: Params, windows: jax.Array) -> jax.Array:
        context = windows[:, :length]
        proposals = jax.vmap(make_predict(draft, params))(context[:, length - short :]).mean
        return window_error(config, proposals, teacher.labels_after(context, proposals), patch_len)

    train, validation = training_windows(config.data, data, ahead)
    return _task(config, Task(draft, short, train, validation, loss, validation_error))


def _task(config: DistillConfig, task: Task) -> Task:
    """A task with the name of its error, and with the windows that the config changes."""
    if config.objective == "gap":
        task = task._replace(validation_name="val_gap")
    return with_changed_windows(task, config.data, config.optim)


def distillation_task(
    config: DistillConfig, data: ForecastData, target: Checkpoint, draft: TimerXLConfig
) -> Task:
    """The task for the number of patches that the draft forecasts at once."""
    several = draft.output_patches > 1
    task = multi_patch_distillation if several else next_patch_distillation
    return task(config, data, target, draft)


def check_distillation(config: DistillConfig, target: Checkpoint, draft: TimerXLConfig) -> None:
    """Raises InputError unless the draft can learn from the target on these contexts."""
    check_context(config.data.context_len, target.model.patch_len)
    check_trained_context(target, config.data.context_len)
    check_context(config.draft_context_len or config.data.context_len, draft.patch_len)
    if draft.patch_len != target.model.patch_len:
        raise InputError(
            f"draft and target must share a patch length, got {draft.patch_len} and "
            f"{target.model.patch_len}."
        )
    if config.objective == "gap" and target.model.head != "gaussian":
        raise InputError(
            "the objective gap counts in stds that the target predicts, and this target has none; "
            "take objective mean, or a target with head 'gaussian'."
        )
    if config.objective == "kl_mse" and config.on_policy > 0:
        raise InputError(
            "kl_mse scores against the truth, which a context with proposals does not have; set "
            "on_policy 0."
        )


def distill(
    config: DistillConfig, data: ForecastData, target: Checkpoint, init: Checkpoint | None = None
) -> Checkpoint:
    """Distils the target into a draft.

    Args:
        config: Everything static.
        data: The series, see `data.splits.prepare`.
        target: The teacher.
        init: A pretrained draft; None for new parameters.

    Returns:
        The last parameters; the ones closest to the target on validation are in `config.run.out`.

    Raises:
        InputError: contexts or patch lengths that do not fit, kl_mse with on_policy, or see
            `run_training`.
    """
    if init is None:
        model = draft_config(config, target.model)
    else:
        model = dataclasses.replace(init.model, dropout=config.dropout)
    check_distillation(config, target, model)
    params = init_params(jax.random.key(config.run.seed), model) if init is None else init.params
    task = distillation_task(config, data, target, model)
    stored = {**to_dict(config), TEACHER: fingerprint(target.params)}
    return run_training(task, config.optim, config.run, params, data.values, stored)
