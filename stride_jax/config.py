"""Configuration: frozen dataclasses, checked when built, stored as JSON inside every checkpoint.

The `Attributes:` sections are the one place where a field is explained; the `--help` of the
command-line programs prints them.
"""

from __future__ import annotations

import dataclasses
import operator
from dataclasses import dataclass, field
from typing import Any, Literal

from stride_jax.errors import InputError


def require(condition: bool, message: str) -> None:
    """Raises InputError with the message unless the condition holds."""
    if not condition:
        raise InputError(message)


LARGEST_INDEX = 2**31 - 1
"""Of what is counted by int32 on a device."""


def whole_number(name: str, value: Any, *, least: int, most: int = LARGEST_INDEX) -> int:
    """A whole number of any type (int, numpy, a JAX scalar) as int.

    Raises:
        InputError: anything else, a bool too; outside `least` to `most`.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise InputError(f"{name} must be a whole number from {least} on, got {value!r}.")
    require(number <= most, f"{name} must be at most {most}, got {value!r}.")
    return number


def check_factor(factor: float) -> None:
    """Raises InputError for a draft's factor outside (0, 1]."""
    require(0 < factor <= 1, f"the draft's factor must be in (0, 1], got {factor}.")


@dataclass(frozen=True)
class TimerXLConfig:
    """A Timer-XL forecaster; target and draft are the same module in different sizes.

    Attributes:
        patch_len: P, time steps in a patch; one patch in, one patch out.
        d_model: D, width of a token.
        num_heads: H, attention heads; the head width D/H must be a multiple of 4.
        d_ff: hidden width of the feed-forward layers.
        num_layers: transformer blocks.
        activation: of the feed-forward layers; gelu is the exact (erf) one.
        head: mean, or gaussian for a mean and a log variance.
        instance_norm: window standardises every input by its own mean and std; causal each patch
            by those of everything up to and including it; None does not.
        covariate: the last variable sees the others, each of the others sees only itself; see
            covariate_mask.
        variable_stride: rotary position of (variable c, patch n) is c * variable_stride + n.
            None takes the input's own number of patches (the original), 0 the patch index alone.
        dropout: rate in attention weights, attention output and feed-forward, when training.
        dtype: of the computation; parameters, statistics and outputs stay float32.
        covariate_mask: original lets the last variable see the future patches of the others;
            causal does not, must be trained so, and is what the cached process takes.
        max_patches: a patch attends to at most so many last patches, itself included; None for
            all before it.
        output_patches: patches forecast in one pass from each position; more than 1 makes a
            multi-patch draft.
        remat: compute a block's activations again in the backward pass instead of keeping them;
            saves memory in training, changes no value.
    """

    patch_len: int = 96
    d_model: int = 1024
    num_heads: int = 8
    d_ff: int = 2048
    num_layers: int = 1
    activation: Literal["relu", "gelu"] = "relu"
    head: Literal["mean", "gaussian"] = "mean"
    instance_norm: Literal["window", "causal"] | None = "window"
    covariate: bool = False
    variable_stride: int | None = None
    dropout: float = 0.1
    dtype: Literal["float32", "bfloat16"] = "float32"
    covariate_mask: Literal["original", "causal"] = "original"
    max_patches: int | None = None
    output_patches: int = 1
    remat: bool = False

    def __post_init__(self) -> None:
        sizes = ("patch_len", "d_model", "num_heads", "d_ff", "num_layers", "output_patches")
        for name in (*sizes, "max_patches"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be at least 1, got {value}.")
        require(
            self.d_model % (4 * self.num_heads) == 0,
            f"d_model {self.d_model} over num_heads {self.num_heads} must be a multiple of 4, "
            "because rotary pairs fill half of each head; change one of the two.",
        )
        require(0 <= self.dropout < 1, f"dropout must be in [0, 1), got {self.dropout}.")
        require(
            self.variable_stride is None or self.variable_stride >= 0,
            f"variable_stride must be None or at least 0, got {self.variable_stride}.",
        )
        require(
            not self.covariate
            or self.covariate_mask == "causal"
            or (self.instance_norm != "causal" and self.max_patches is None),
            "the original's covariate mask sees future patches, so it cannot go with causal "
            "normalisation or max_patches; set covariate_mask 'causal'.",
        )

    def scaled(self, factor: float) -> TimerXLConfig:
        """The draft's configuration: every dimension times `factor`, kept usable.

        Width, layers, heads and feed-forward are rounded; the width has at least 16 and gives up
        what it must to be a multiple of 4 H; where that would cost more than 24, a head goes
        instead (so .7 x (768, 12 heads) is 532 with 7 heads, not 512 with 8). Reproduces the
        original's table of draft dimensions row by row.

        Raises:
            InputError: factor outside (0, 1].
        """
        check_factor(factor)
        width = max(16, round(self.d_model * factor))
        heads = max(1, round(self.num_heads * factor))
        while heads > 1 and (width < 4 * heads or width % (4 * heads) > 24):
            heads -= 1
        return dataclasses.replace(
            self,
            d_model=width - width % (4 * heads),
            num_heads=heads,
            d_ff=max(64, round(self.d_ff * factor)),
            num_layers=max(1, round(self.num_layers * factor)),
        )


@dataclass(frozen=True)
class DataConfig:
    """Which series, and how it is cut into windows.

    Attributes:
        source: the embedded series beijing_weather, a benchmark name such as ETTh1 (downloaded
            once), or the path of a CSV, txt, npy or npz file.
        columns: variables to use, in this order; empty for all.
        missing: what to do with missing cells: error, or interpolate along time in each window,
            a context never from what comes after it; missing truths are not scored.
        split: benchmark split; auto takes ett_hour or ett_minute for files named ETTh*, ETTm*,
            and 70/10/20 percent (ratio) for the rest.
        variables: joint windows hold all variables; separate ones hold one variable each.
        context_len: L, time steps the model sees; a multiple of the patch length.
        validation_stride: steps between two validation windows of a training; 1 takes every one.
    """

    source: str = "beijing_weather"
    columns: tuple[str, ...] = ()
    missing: Literal["error", "interpolate"] = "error"
    split: Literal["auto", "ett_hour", "ett_minute", "ratio"] = "auto"
    variables: Literal["joint", "separate"] = "joint"
    context_len: int = 672
    validation_stride: int = 1

    def __post_init__(self) -> None:
        for name in ("context_len", "validation_stride"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, got {value}.")


@dataclass(frozen=True)
class OptimConfig:
    """Adam and its schedule.

    Attributes:
        learning_rate: the first step's.
        schedule: constant; cosine over t_max epochs; type1, the original's, a tenth of the rate
            after each epoch.
        t_max: epochs of the cosine's half period, None for all of them; past it the rate rises
            again, as the original's does.
        batch_size: windows a step; the last incomplete batch of an epoch is dropped.
        epochs: passes over the training windows, at most.
        patience: stop after so many epochs without a better validation error.
        steps_per_epoch: end an epoch early after so many steps; None for all windows.
        grad_clip: global norm limit of the gradient; None for no limit.
        accumulate: parts that a batch is taken in, one after the other, to save memory; the
            gradient is their mean.
    """

    learning_rate: float = 1e-4
    schedule: Literal["constant", "cosine", "type1"] = "cosine"
    t_max: int | None = None
    batch_size: int = 32
    epochs: int = 10
    patience: int = 3
    steps_per_epoch: int | None = None
    grad_clip: float | None = None
    accumulate: int = 1

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, f"learning_rate must be > 0, got {self.learning_rate}.")
        sizes = ("batch_size", "epochs", "patience", "t_max", "steps_per_epoch", "accumulate")
        for name in sizes:
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be at least 1, got {value}.")
        require(
            self.batch_size % self.accumulate == 0,
            f"batch_size {self.batch_size} must be a multiple of accumulate {self.accumulate}.",
        )
        require(
            self.grad_clip is None or self.grad_clip > 0,
            f"grad_clip must be > 0 or None, got {self.grad_clip}.",
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
        resume: go on from the last checkpoint in `out`, with the same settings; optim.epochs may
            change, and optim.patience may grow, where the steps already done would be the same.
        seed: of the one key everything random is derived from.
        log_every: steps between two log lines.
        save_every: steps between two checkpoints; one is also written after each epoch.
        distributed: join the other processes of a run on several hosts, see `sharding.connect`.
    """

    out: str = "runs/train"
    resume: bool = False
    seed: int = 2021
    log_every: int = 20
    save_every: int = 500
    distributed: bool = False

    def __post_init__(self) -> None:
        for name in ("log_every", "save_every"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, got {value}.")


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
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: TimerXLConfig = field(default_factory=TimerXLConfig)
    factor: float = 1.0
    init_from: str = ""
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        check_context(self.data.context_len, self.model.patch_len)
        check_factor(self.factor)
        require(
            self.model.output_patches == 1,
            "train.py trains next-patch models; a multi-patch draft is made by distill.py with "
            "--output_patches.",
        )

    @property
    def trained_model(self) -> TimerXLConfig:
        """The model with the factor applied."""
        return self.model if self.factor == 1 else self.model.scaled(self.factor)


@dataclass(frozen=True)
class DistillConfig:
    """`distill.py`: train a small draft to say what a target says.

    Attributes:
        data: the series; context_len is the target's.
        target: checkpoint of the target (the teacher).
        init_from: checkpoint of a pretrained draft; empty for new parameters.
        factor: size of a new draft relative to the target.
        head: of a new draft; the objectives nll and kl_mse need gaussian.
        dropout: of the draft in training.
        draft_context_len: steps the draft sees; None for the target's.
        objective: nll, the original's Gaussian negative log-likelihood of the noisy target;
            kl_mse, the divergence from the target's law at sigma plus the error against the truth;
            mean, the squared distance of the means (a tied sigma).
        sigma: std of the target's law in kl_mse and of on-policy proposals, in the units of the
            standardised series.
        teacher_noise: std of the noise added to the target's mean in nll.
        teacher_dropout: run the target with its dropout on.
        variance_reg: weight of relu(-logvar - 5), which keeps the variance from collapsing.
        mse_weight: weight of the error against the truth in kl_mse.
        augment: share of windows replaced by mixtures, stretches, gains and trends of them, which
            the target labels as well as real ones.
        on_policy: share of contexts that end with the draft's own proposals, as in decoding; for a
            multi-patch draft, the weight of the distance from a target that has seen them.
        num_draft: K, the most proposals such a context holds.
        output_patches: patches a new draft forecasts in one pass; more than 1 makes a multi-patch
            draft.
        optim: the optimiser.
        run: files and seed.
    """

    data: DataConfig = field(default_factory=DataConfig)
    target: str = "runs/target"
    init_from: str = ""
    factor: float = 0.25
    head: Literal["mean", "gaussian"] = "mean"
    dropout: float = 0.1
    draft_context_len: int | None = None
    objective: Literal["nll", "kl_mse", "mean"] = "mean"
    sigma: float = 0.5
    teacher_noise: float = 0.05
    teacher_dropout: bool = False
    variance_reg: float = 0.01
    mse_weight: float = 1.0
    augment: float = 0.0
    on_policy: float = 0.5
    num_draft: int = 3
    output_patches: int = 1
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(learning_rate=5e-5, epochs=15, t_max=10)
    )
    run: RunConfig = field(default_factory=lambda: RunConfig(out="runs/draft"))

    def __post_init__(self) -> None:
        for name in ("on_policy", "augment"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} must be in [0, 1], got {value}.")
        require(
            self.augment == 0 or self.objective != "kl_mse",
            "kl_mse scores against the truth, which a made-up series does not have; set augment 0.",
        )
        require(self.num_draft >= 1, f"num_draft must be at least 1, got {self.num_draft}.")
        require(
            self.output_patches >= 1,
            f"output_patches must be at least 1, got {self.output_patches}.",
        )
        require(self.sigma > 0, f"sigma must be > 0, got {self.sigma}.")
        check_factor(self.factor)
        require(0 <= self.dropout < 1, f"dropout must be in [0, 1), got {self.dropout}.")
        for name in ("teacher_noise", "variance_reg", "mse_weight"):
            value = getattr(self, name)
            require(value >= 0, f"{name} must not be negative, got {value}.")
        require(
            self.draft_context_len is None or 1 <= self.draft_context_len <= self.data.context_len,
            f"draft_context_len {self.draft_context_len} must be between 1 and the target's "
            f"context, {self.data.context_len}.",
        )


@dataclass(frozen=True)
class DecodeConfig:
    """Sizes and choices of one decode; everything here is static (a new value compiles anew).

    Attributes:
        horizon: steps to forecast.
        num_draft: K, patches the draft proposes a round (the last rounds: what is still missing);
            0 is plain autoregression.
        num_paths: S, sample paths of each series, an axis of the forecast; None for one path
            without that axis. The context is processed once for all of them.
        batch_size: series decoded at once, to bound the memory; None for all.
        path_chunk: paths of a series decoded at once; None for all.
        learned_scale: take the std of a prediction from its model where that has a gaussian head,
            instead of sigma; the draft's own needs a rule with free scales (residual).
        trace: keep what the rule saw of every proposal, in `DecodeInfo.trace`.
    """

    horizon: int
    num_draft: int = 3
    num_paths: int | None = None
    batch_size: int | None = None
    path_chunk: int | None = None
    learned_scale: bool = False
    trace: bool = False

    def __post_init__(self) -> None:
        for name in ("horizon", "num_draft", "num_paths", "batch_size", "path_chunk"):
            value, least = getattr(self, name), 0 if name == "num_draft" else 1
            if value is not None or name in ("horizon", "num_draft"):
                object.__setattr__(self, name, whole_number(name, value, least=least))


def check_context(context_len: int, patch_len: int) -> None:
    """Raises InputError unless the context is a whole number of patches."""
    require(
        context_len >= patch_len and context_len % patch_len == 0,
        f"context_len {context_len} must be a positive multiple of patch_len {patch_len}.",
    )
