"""Configuration: frozen dataclasses, checked when built, stored as JSON inside every checkpoint.

The `Attributes:` sections are the one place where a field is explained; the `--help` of the
command-line programs prints them.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from stride_jax.errors import InputError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def _check_factor(factor: float) -> None:
    _require(0 < factor <= 1, f"the draft's factor must be in (0, 1], got {factor}.")


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
        covariate_mask: original lets the last variable see the future patches of the others;
            causal does not, must be trained so, and is what the cached process takes.
        variable_stride: rotary position of (variable c, patch n) is c * variable_stride + n.
            None takes the input's own number of patches (the original), 0 the patch index alone.
        max_patches: a patch attends to at most so many last patches, itself included; None for
            all before it.
        output_patches: patches forecast in one pass from each position; more than 1 makes a
            multi-patch draft.
        dropout: rate in attention weights, attention output and feed-forward, when training.
        dtype: of the computation; parameters, statistics and outputs stay float32.
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
    covariate_mask: Literal["original", "causal"] = "original"
    variable_stride: int | None = None
    max_patches: int | None = None
    output_patches: int = 1
    dropout: float = 0.1
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        sizes = ("patch_len", "d_model", "num_heads", "d_ff", "num_layers", "output_patches")
        for name in (*sizes, "max_patches"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"{name} must be at least 1, got {value}.")
        _require(
            self.d_model % (4 * self.num_heads) == 0,
            f"d_model {self.d_model} over num_heads {self.num_heads} must be a multiple of 4, "
            "because rotary pairs fill half of each head; change one of the two.",
        )
        _require(0 <= self.dropout < 1, f"dropout must be in [0, 1), got {self.dropout}.")
        _require(
            self.variable_stride is None or self.variable_stride >= 0,
            f"variable_stride must be None or at least 0, got {self.variable_stride}.",
        )
        _require(
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
        _check_factor(factor)
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
        missing: what to do with missing cells: error, or interpolate along time.
        split: benchmark split; auto takes ett_hour or ett_minute for files named ETTh*, ETTm*,
            and 70/10/20 percent (ratio) for the rest.
        variables: joint windows hold all variables; separate ones hold one variable each.
        context_len: L, time steps the model sees; a multiple of the patch length.
    """

    source: str = "beijing_weather"
    columns: tuple[str, ...] = ()
    missing: Literal["error", "interpolate"] = "error"
    split: Literal["auto", "ett_hour", "ett_minute", "ratio"] = "auto"
    variables: Literal["joint", "separate"] = "joint"
    context_len: int = 672

    def __post_init__(self) -> None:
        _require(self.context_len >= 1, f"context_len must be at least 1, got {self.context_len}.")


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
    """

    learning_rate: float = 1e-4
    schedule: Literal["constant", "cosine", "type1"] = "cosine"
    t_max: int | None = None
    batch_size: int = 32
    epochs: int = 10
    patience: int = 3
    steps_per_epoch: int | None = None
    grad_clip: float | None = None

    def __post_init__(self) -> None:
        _require(self.learning_rate > 0, f"learning_rate must be > 0, got {self.learning_rate}.")
        for name in ("batch_size", "epochs", "patience", "t_max", "steps_per_epoch"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"{name} must be at least 1, got {value}.")
        _require(
            self.grad_clip is None or self.grad_clip > 0,
            f"grad_clip must be > 0 or None, got {self.grad_clip}.",
        )


@dataclass(frozen=True)
class RunConfig:
    """Where a training run writes, and how often.

    Attributes:
        out: directory of the run: log.jsonl and checkpoints/.
        resume: go on from the last checkpoint in `out`.
        seed: of the one key everything random is derived from.
        log_every: steps between two log lines.
        save_every: steps between two checkpoints; one is also written after each epoch.
    """

    out: str = "runs/train"
    resume: bool = False
    seed: int = 2021
    log_every: int = 20
    save_every: int = 500

    def __post_init__(self) -> None:
        for name in ("log_every", "save_every"):
            value = getattr(self, name)
            _require(value >= 1, f"{name} must be at least 1, got {value}.")


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
        _check_factor(self.factor)
        _require(
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
        on_policy: share of contexts that end with the draft's own proposals, as in decoding.
        num_draft: K, the most proposals such a context holds.
        output_patches: patches a new draft forecasts in one pass; more than 1 makes a multi-patch
            draft (on_policy must be 0).
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
    on_policy: float = 0.5
    num_draft: int = 3
    output_patches: int = 1
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(learning_rate=5e-5, epochs=15, t_max=10)
    )
    run: RunConfig = field(default_factory=lambda: RunConfig(out="runs/draft"))

    def __post_init__(self) -> None:
        _require(0 <= self.on_policy <= 1, f"on_policy must be in [0, 1], got {self.on_policy}.")
        _require(self.num_draft >= 1, f"num_draft must be at least 1, got {self.num_draft}.")
        _require(
            self.output_patches >= 1,
            f"output_patches must be at least 1, got {self.output_patches}.",
        )
        _require(
            self.output_patches == 1 or self.on_policy == 0,
            "a multi-patch draft never sees its own proposals; set on_policy 0.",
        )
        _require(self.sigma > 0, f"sigma must be > 0, got {self.sigma}.")
        _check_factor(self.factor)
        _require(0 <= self.dropout < 1, f"dropout must be in [0, 1), got {self.dropout}.")
        for name in ("teacher_noise", "variance_reg", "mse_weight"):
            value = getattr(self, name)
            _require(value >= 0, f"{name} must not be negative, got {value}.")
        _require(
            self.draft_context_len is None or 1 <= self.draft_context_len <= self.data.context_len,
            f"draft_context_len {self.draft_context_len} must be between 1 and the target's "
            f"context, {self.data.context_len}.",
        )


@dataclass(frozen=True)
class DecodeConfig:
    """Sizes and choices of one decode; everything here is static (a new value compiles anew).

    Attributes:
        horizon: steps to forecast.
        num_draft: K, patches the draft proposes a round; 0 is plain autoregression.
        rule: how a proposal is coupled to the target's law; a name in `coupling.RULES`, a
            `coupling.Rule`, or just its function.
        num_paths: S, sample paths of each series, an axis of the forecast; None for one path
            without that axis. The context is processed once for all of them.
        batch_size: series decoded at once, to bound the memory; None for all.
        path_chunk: paths of a series decoded at once; None for all.
        learned_scale: take the std of a law from its model where that has a gaussian head,
            instead of sigma; the draft's own needs a rule with free scales (residual).
        pacing: draft fewer than K patches while proposals are rejected: threshold (the original's
            rule), gain (most expected patches for the cost), or None for always K. A shorter round
            saves draft steps; the verification keeps its K + 1 rows.
        trace: keep what the rule saw of every proposal, in `DecodeInfo.trace`.
    """

    horizon: int
    num_draft: int = 3
    rule: Any = "maximal"
    num_paths: int | None = None
    batch_size: int | None = None
    path_chunk: int | None = None
    learned_scale: bool = False
    pacing: Literal["threshold", "gain"] | None = None
    trace: bool = False

    def __post_init__(self) -> None:
        for name in ("horizon", "num_draft", "num_paths", "batch_size", "path_chunk"):
            value = getattr(self, name)
            optional = name not in ("horizon", "num_draft") and value is None
            _require(
                optional or (isinstance(value, int) and not isinstance(value, bool)),
                f"{name} must be a whole number, got {value!r}.",
            )
            least = 0 if name == "num_draft" else 1
            _require(optional or value >= least, f"{name} must be at least {least}, got {value}.")
        _require(
            self.pacing in (None, "threshold", "gain"),
            f"pacing must be 'threshold', 'gain' or None, got {self.pacing!r}.",
        )


@dataclass(frozen=True)
class EvaluateConfig:
    """`evaluate.py`: target alone, draft alone and speculative, on one test set.

    Attributes:
        data: the series; context_len is the target's.
        target: checkpoint of the target, or a name in stride_jax/assets.
        draft: checkpoint of the draft, or a name in stride_jax/assets; or layer-skip:N (the
            target's first N layers), seasonal:PERIOD, last-value, nearest.
        other_drafts: more of these, each with its own rows.
        process: window (every patch sees the last L steps), cached (the sequence grows; one causal
            pass verifies a round), or auto: cached for models trained with causal normalisation.
        both_baselines: also decode the target alone under the other process.
        horizons: steps to forecast, one set of rows each.
        num_draft: K, patches proposed a round.
        pacing: draft fewer while proposals are rejected: threshold, gain, or None for always K.
        rules: of the speculative rows, see coupling.RULES; empty for none.
        sigma: std of the target's law in standardised units; None calibrates it on the
            validation split (the root of the one-patch validation MSE).
        bias: factor on the acceptance ratio of resample and as_released.
        mse_tolerance: mean squared distance that they accept outright; 0 for none.
        tolerance: RMS gap of the means, in units of sigma, that mean and shared_noise accept.
        temperature: of mean's random acceptance; None for the tolerance.
        emit_proposal: mean puts out the proposals it accepts, not the target's means there.
        season: steps that the seasonal-naive forecast repeats.
        budget: first pick process, rule, K and tolerance on the validation split: the fastest
            whose error (MSE of mean paths, CRPS of sample paths) is at most this share above the
            target's own; then evaluate that one. None evaluates all rules as given.
        budget_for: mean paths or sample paths.
        num_paths: sample paths a window in the sampled rows; at least 2.
        stride: steps between two scored windows; 1 scores every window.
        batch_size: windows decoded at once when scoring.
        timing_batch: windows decoded at once when timing.
        repeats: timed calls; the median counts.
        seed: of the one key everything random is derived from.
        out: directory of the results.
        plot_variable: variable in the picture; empty for the first.
    """

    data: DataConfig = field(default_factory=DataConfig)
    target: str = "beijing_target.safetensors"
    draft: str = "beijing_draft.safetensors"
    other_drafts: tuple[str, ...] = ()
    process: Literal["auto", "window", "cached"] = "auto"
    both_baselines: bool = False
    horizons: tuple[int, ...] = (96,)
    num_draft: int = 3
    pacing: Literal["threshold", "gain"] | None = None
    rules: tuple[str, ...] = ("maximal", "resample")
    sigma: float | None = None
    bias: float = 1.0
    mse_tolerance: float = 0.0
    tolerance: float = 0.1
    temperature: float | None = None
    emit_proposal: bool = False
    season: int = 24
    budget: float | None = None
    budget_for: Literal["point", "sampled"] = "point"
    num_paths: int = 4
    stride: int = 1
    batch_size: int = 64
    timing_batch: int = 8
    repeats: int = 5
    seed: int = 0
    out: str = "results"
    plot_variable: str = ""

    def __post_init__(self) -> None:
        sizes = ("num_draft", "stride", "batch_size", "timing_batch", "repeats", "season")
        for name in sizes:
            value = getattr(self, name)
            _require(value >= 1, f"{name} must be at least 1, got {value}.")
        _require(self.num_paths >= 2, f"num_paths must be at least 2, got {self.num_paths}.")
        _require(
            len(self.horizons) > 0 and min(self.horizons) >= 1,
            f"horizons must be at least one, each at least 1, got {self.horizons}.",
        )
        _require(1 <= self.bias < math.inf, f"bias must be at least 1, got {self.bias}.")
        for name in ("tolerance", "mse_tolerance", "temperature"):
            value = getattr(self, name)
            _require(
                value is None or 0 <= value < math.inf,
                f"{name} must be finite and not negative, got {value}.",
            )
        _require(
            self.budget is None or self.budget >= 0,
            f"budget must be at least 0 or None, got {self.budget}.",
        )
        _require(
            self.sigma is None or self.sigma > 0, f"sigma must be > 0 or None, got {self.sigma}."
        )


@dataclass(frozen=True)
class LatencyConfig:
    """`evaluate.py --config latency`: how long decoding takes, whatever the weights say.

    New models without training; acceptance is forced to 1 (the best case) and, in one row a cell,
    measured with the rule `maximal`.

    Attributes:
        layers: of the targets.
        d_model: width of the targets.
        num_heads: of the targets.
        d_ff: of the targets.
        patch_len: P.
        draft_factor: size of the drafts.
        context_patches: patches of context.
        num_vars: C.
        batches: series decoded at once.
        patches: patches decoded; the horizon over P.
        num_drafts: K; those below the number of patches.
        processes: window, cached.
        measured_num_draft: K of the rows with measured acceptance.
        sigma: std there, in units of the standardised context.
        repeats: timed calls; the median counts.
        max_seconds: a cell whose autoregressive decode would take longer is left out and listed,
            by an estimate at `gflops`.
        gflops: billions of operations a second, for that estimate.
        seed: of weights and contexts.
        out: directory of the results.
    """

    layers: tuple[int, ...] = (1, 8)
    d_model: int = 1024
    num_heads: int = 8
    d_ff: int = 2048
    patch_len: int = 96
    draft_factor: float = 0.25
    context_patches: int = 16
    num_vars: tuple[int, ...] = (1, 7)
    batches: tuple[int, ...] = (1, 8, 64)
    patches: tuple[int, ...] = (4, 8, 35)
    num_drafts: tuple[int, ...] = (1, 2, 4, 8)
    processes: tuple[Literal["window", "cached"], ...] = ("cached", "window")
    measured_num_draft: int = 3
    sigma: float = 1.0
    repeats: int = 5
    max_seconds: float = 3.0
    gflops: float = 100.0
    seed: int = 0
    out: str = "results/latency"

    def __post_init__(self) -> None:
        _check_factor(self.draft_factor)
        for name in ("layers", "num_vars", "batches", "patches", "num_drafts", "processes"):
            values = getattr(self, name)
            bad = [v for v in values if isinstance(v, int) and v < 1]
            _require(
                len(values) > 0 and not bad, f"{name} must be numbers from 1 on, got {values}."
            )


def check_context(context_len: int, patch_len: int) -> None:
    """Raises InputError unless the context is a whole number of patches."""
    _require(
        context_len >= patch_len and context_len % patch_len == 0,
        f"context_len {context_len} must be a positive multiple of patch_len {patch_len}.",
    )
