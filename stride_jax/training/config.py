"""Configs of `train.py` and `distill.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Lt, MinLen

from stride_jax.config import (
    Count,
    NotNegative,
    Positive,
    Seed,
    Share,
    check_context,
    check_factor,
    check_fields,
    require,
)
from stride_jax.data.config import DataConfig
from stride_jax.models.config import TimerXLConfig


@dataclass(frozen=True)
class OptimConfig:
    """Adam and its schedule.

    Attributes:
        learning_rate: the first step's after the warm-up.
        schedule: constant; cosine over t_max epochs; type1, the original's, a tenth of the rate
            after each epoch.
        t_max: epochs of the cosine's half period, None for all of them; past it the rate rises
            again, as the original's does.
        batch_size: windows per step; the last incomplete batch of an epoch is dropped.
        epochs: passes over the training windows, at most.
        patience: stop after so many epochs without a better validation error.
        steps_per_epoch: end an epoch early after so many steps; None for all windows.
        grad_clip: global norm limit of the gradient; None for no limit.
        accumulate: parts that a batch is taken in, one after the other, to save memory; the
            gradient is their mean.
        warmup_steps: the first steps, in which the rate grows linearly from 0; the schedule goes
            on beneath.
        weight_decay: of AdamW, relative to the learning rate; 0 is Adam.
    """

    learning_rate: Positive = 1e-4
    schedule: Literal["constant", "cosine", "type1"] = "cosine"
    t_max: Count | None = None
    batch_size: Count = 32
    epochs: Count = 10
    patience: Count = 3
    steps_per_epoch: Count | None = None
    grad_clip: Positive | None = None
    accumulate: Count = 1
    warmup_steps: Annotated[int, Ge(0)] = 0
    weight_decay: NotNegative = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            self.batch_size % self.accumulate == 0,
            f"batch_size {self.batch_size} must be a multiple of accumulate {self.accumulate}.",
        )

    @property
    def period(self) -> int | None:
        """Epochs of the cosine's half period; None for schedules that have none."""
        return (self.t_max or self.epochs) if self.schedule == "cosine" else None


@dataclass(frozen=True)
class RunConfig:
    """Where a training run writes, and how often.

    Attributes:
        out: directory of the run: log.jsonl, last/ and best/.
        resume: go on from the last checkpoint in `out`, with the same series and settings;
            optim.epochs may change, and optim.patience may grow, where the steps already done would
            be the same.
        seed: of the one key everything random is derived from; below 2**32.
        log_every: steps between two log lines.
        save_every: steps between two checkpoints; one is also written after each epoch.
        distributed: join the other processes of a run on several hosts, see `sharding.connect`.
        steps_per_dispatch: steps that the device takes between two looks of the host, at most (log
            lines and checkpoints end them, too); None for as many as take about half a second.
    """

    out: str = "runs/train"
    resume: bool = False
    seed: Seed = 2021
    log_every: Count = 20
    save_every: Count = 500
    distributed: bool = False
    steps_per_dispatch: Count | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class TrainConfig:
    """`train.py`: a target, a draft to be distilled later, or a fine-tuning.

    Attributes:
        data: the series.
        model: the forecaster to train.
        factor: scale every dimension of the model by this; below 1 it trains a draft.
        init_from: checkpoint whose parameters training starts from; empty for new ones.
        optim: the optimiser.
        run: files and seed.
        loss: likelihood is the squared error of a mean, the likelihood of a gaussian head; crps
            (gaussian head) the continuous ranked probability score in units of the running std,
            floored at a share of the window's, so that no outlier and no flat start dominates;
            paths that score of a few sample paths, `ahead` patches long, in units of the error
            that the target expects, for one that has learned one patch (see `training.path_loss`).
        ahead: patches that the loss paths scores.
        covariance: whose correlations the errors of a patch have in the loss paths, see
            `load_covariance`; empty for independent errors.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: TimerXLConfig = field(default_factory=TimerXLConfig)
    factor: float = 1.0
    init_from: str = ""
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)
    loss: Literal["likelihood", "crps", "paths"] = "likelihood"
    ahead: Count = 6
    covariance: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        check_context(self.data.context_len, self.model.patch_len)
        check_factor(self.factor)
        require(
            self.loss == "likelihood" or self.model.head == "gaussian",
            f"the loss {self.loss} scores a distribution; set model.head gaussian, got "
            f"{self.model.head}.",
        )
        require(
            self.loss != "paths" or self.model.instance_norm != "window",
            "the loss paths decodes from caches; set model.instance_norm causal.",
        )
        require(
            self.loss == "paths" or not self.covariance,
            f"covariance {self.covariance!r} is of the loss paths; the loss is {self.loss}.",
        )
        require(
            self.model.output_patches == 1,
            "train.py trains next-patch models; a multi-patch draft is trained by distill.py with "
            "--output_patches.",
        )

    @property
    def trained_model(self) -> TimerXLConfig:
        """The model with the factor applied."""
        return self.model if self.factor == 1 else self.model.scaled(self.factor)


@dataclass(frozen=True)
class RidgeConfig:
    """A linear draft, which is fitted in closed form (objective ridge).

    Attributes:
        maps: one map for all variables; per_variable, one for each variable of joint windows; or a
            mixture whose gate weights its maps by the context.
        num_maps: M, maps of a mixture.
        level: what a window is counted from, its last value or its mean.
        windows: training windows that the target labels, at most.
        regularisation: penalties to choose from, by the acceptance on validation windows.
    """

    maps: Literal["one", "per_variable", "mixture"] = "one"
    num_maps: Annotated[int, Ge(2)] = 4
    level: Literal["last", "mean"] = "last"
    windows: Count = 12_000
    regularisation: Annotated[tuple[Positive, ...], MinLen(1)] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class DistillConfig:
    """`distill.py`: train a small draft to forecast what a target forecasts.

    Attributes:
        data: the series; context_len is the target's.
        target: checkpoint of the target (the teacher).
        init_from: checkpoint of a pretrained draft; empty for new parameters.
        factor: size of a new draft relative to the target.
        num_layers: of a new draft; None for those of the target times the factor.
        head: of a new draft; the objectives nll and kl_mse need gaussian.
        dropout: of the draft in training.
        draft_context_len: steps the draft sees; None for the target's.
        objective: nll, the original's Gaussian negative log-likelihood of the noisy target;
            kl_mse, the divergence from the target's distribution at sigma plus the error against
            the truth; mean, the squared distance of the means (a tied sigma); gap, their distance
            over a patch in stds that the target predicts; ridge, a linear draft, fitted in closed
            form.
        sigma: std of the target's distribution in kl_mse and of on-policy proposals, in the units
            of the standardised series.
        teacher_noise: std of the noise added to the target's mean in nll.
        teacher_dropout: run the target with its dropout on.
        variance_reg: weight of relu(-logvar - 5), which keeps the variance from collapsing.
        mse_weight: weight of the error against the truth in kl_mse.
        augment: share of windows replaced by mixtures, stretches, gains and trends of them, which
            the target labels as well as real ones.
        on_policy: share of contexts that end with proposals of the draft, as in decoding; for a
            multi-patch draft, the weight of the distance from a target that has seen them.
        num_draft: K, the most proposals such a context holds.
        output_patches: patches a new draft forecasts in one pass; more than 1 makes a multi-patch
            draft.
        ridge: the linear draft of the objective ridge, which uses none of the settings of a
            forecaster or of the optimiser.
        optim: the optimiser.
        run: files and seed.
    """

    data: DataConfig = field(default_factory=DataConfig)
    target: str = "runs/target"
    init_from: str = ""
    factor: float = 0.25
    num_layers: Count | None = None
    head: Literal["mean", "gaussian"] = "mean"
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    draft_context_len: Count | None = None
    objective: Literal["nll", "kl_mse", "mean", "gap", "ridge"] = "mean"
    sigma: Positive = 0.5
    teacher_noise: NotNegative = 0.05
    teacher_dropout: bool = False
    variance_reg: NotNegative = 0.01
    mse_weight: NotNegative = 1.0
    augment: Share = 0.0
    on_policy: Share = 0.5
    num_draft: Count = 3
    output_patches: Count = 1
    ridge: RidgeConfig = field(default_factory=RidgeConfig)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(learning_rate=5e-5, epochs=15, t_max=10)
    )
    run: RunConfig = field(default_factory=lambda: RunConfig(out="runs/draft"))

    def __post_init__(self) -> None:
        check_fields(self)
        check_factor(self.factor)
        require(
            self.augment == 0 or self.objective != "kl_mse",
            "kl_mse scores against the truth, which a made-up series does not have; set augment 0.",
        )
        require(
            self.objective != "ridge"
            or self.ridge.maps != "per_variable"
            or self.data.variables == "joint",
            "separate windows do not know their variable, so they cannot have a map for each; set "
            "data.variables joint, or ridge.maps mixture.",
        )
        require(
            self.objective != "ridge" or self.on_policy < 1,
            "the first linear draft is fitted to windows without proposals; set on_policy below 1.",
        )
        context = self.data.context_len
        require(
            self.draft_context_len is None or self.draft_context_len <= context,
            f"draft_context_len {self.draft_context_len} must be between 1 and the target's "
            f"context, {context}.",
        )
