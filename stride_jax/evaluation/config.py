"""Configuration of `evaluate.py`: an evaluation on a test set, or a latency table."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from stride_jax.config import check_factor, require
from stride_jax.data.config import DataConfig


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
        draft_length: fixed (always K), or fewer while proposals are rejected: threshold, gain.
        draft_cost: the cost of a draft step over that of a verification, for the gain.
        rules: of the speculative rows, see coupling.RULES; empty for none.
        sigma: std of the target's law in standardised units; None calibrates it on the
            validation split (the root of the one-patch validation MSE).
        calibration_stride: steps between two validation windows that it is calibrated on.
        diagonal_sigma: calibrate one std for each step and variable of a patch, not one for all.
        learned_scale: models with a variance of their own draw with it instead of sigma, in all
            sampled rows; needs a rule that allows it (residual).
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
        budget_distance: what is picked must also be so close to the target's own forecast: at
            most this share of the draft's mean squared distance from it. None for any.
        num_paths: sample paths a window in the sampled rows; at least 2, or 0 for no such rows.
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
    draft_length: Literal["fixed", "threshold", "gain"] = "fixed"
    draft_cost: float = 0.1
    rules: tuple[str, ...] = ("maximal", "resample")
    sigma: float | None = None
    calibration_stride: int = 7
    diagonal_sigma: bool = False
    learned_scale: bool = False
    bias: float = 1.0
    mse_tolerance: float = 0.0
    tolerance: float = 0.1
    temperature: float | None = None
    emit_proposal: bool = False
    season: int = 24
    budget: float | None = None
    budget_for: Literal["point", "sampled"] = "point"
    budget_distance: float | None = None
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
        for name in (*sizes, "calibration_stride"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, got {value}.")
        require(
            self.num_paths >= 2 or self.num_paths == 0,
            f"num_paths must be at least 2, or 0 for mean paths only, got {self.num_paths}.",
        )
        require(
            len(self.horizons) > 0 and min(self.horizons) >= 1,
            f"horizons must be at least one, each at least 1, got {self.horizons}.",
        )
        require(1 <= self.bias < math.inf, f"bias must be at least 1, got {self.bias}.")
        for name in ("tolerance", "mse_tolerance", "draft_cost"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"{name} must be finite and at least 0, got {value}.")
        require(
            self.temperature is None or 1e-6 <= self.temperature < math.inf,
            f"temperature must be None or at least 1e-6, got {self.temperature}.",
        )
        for name in ("budget", "budget_distance"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{name} must be at least 0 or None, got {value}.")
        require(
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
    num_drafts: tuple[int, ...] = (1, 4, 8)
    processes: tuple[Literal["window", "cached"], ...] = ("cached", "window")
    measured_num_draft: int = 3
    sigma: float = 1.0
    repeats: int = 5
    max_seconds: float = 1.0
    gflops: float = 100.0
    seed: int = 0
    out: str = "results/latency"

    def __post_init__(self) -> None:
        check_factor(self.draft_factor)
        for name in ("repeats", "measured_num_draft", "context_patches"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, got {value}.")
        for name in ("sigma", "gflops", "max_seconds"):
            value = getattr(self, name)
            require(value > 0, f"{name} must be > 0, got {value}.")
        for name in ("layers", "num_vars", "batches", "patches", "num_drafts", "processes"):
            values = getattr(self, name)
            bad = [v for v in values if isinstance(v, int) and v < 1]
            require(len(values) > 0 and not bad, f"{name} must be numbers from 1 on, got {values}.")


@dataclass(frozen=True)
class SweepConfig:
    """`evaluate.py --config sweep`: one pair under every setting of its rules.

    Each rule is measured with every value of what it depends on: K and sigma for all (rules of
    means take sigma as the unit of the gap), bias and mse_tolerance for resample and as_released,
    tolerance for mean and shared_noise. Only rule and K compile anew.

    Attributes:
        base: data, pair, process, windows and batch_size; its longest horizon, its sigma where
            `sigmas` is empty. The rest of it is not looked at.
        rules: see coupling.RULES.
        num_drafts: K.
        sigmas: stds of the target's law in standardised units; empty for the calibrated one.
        biases: of resample and as_released.
        mse_tolerances: of resample and as_released.
        tolerances: of mean and shared_noise, in sigmas.
        out: directory of the results.
    """

    base: EvaluateConfig = field(default_factory=EvaluateConfig)
    rules: tuple[str, ...] = ("maximal", "block", "resample", "mean", "shared_noise")
    num_drafts: tuple[int, ...] = (1, 3, 5, 10)
    sigmas: tuple[float, ...] = ()
    biases: tuple[float, ...] = (1.0,)
    mse_tolerances: tuple[float, ...] = (0.0,)
    tolerances: tuple[float, ...] = (0.1,)
    out: str = "results/sweep"

    def __post_init__(self) -> None:
        for name in ("rules", "num_drafts", "biases", "mse_tolerances", "tolerances"):
            require(len(getattr(self, name)) > 0, f"{name} must have at least one value.")
        least = {"num_drafts": 1, "biases": 1, "mse_tolerances": 0, "tolerances": 0}
        for name, bound in least.items():
            bad = [v for v in getattr(self, name) if not bound <= v < math.inf]
            require(not bad, f"{name} must be finite and at least {bound}, got {bad}.")
        bad = [s for s in self.sigmas if not 0 < s < math.inf]
        require(not bad, f"sigmas must be finite and > 0, got {bad}.")


@dataclass(frozen=True)
class SpeedConfig:
    """`evaluate.py --config speed`: one pair's times, acceptances and memory by batch size.

    Attributes:
        base: data, pair, process, rules and their settings, sigma; its longest horizon. One path
            of each series is decoded; the rest of it is not looked at.
        batches: series decoded at once.
        repeats: timed calls, each on other test windows; the median counts.
        out: directory of the results.
    """

    base: EvaluateConfig = field(default_factory=EvaluateConfig)
    batches: tuple[int, ...] = (1, 8, 64)
    repeats: int = 9
    out: str = "results/speed"

    def __post_init__(self) -> None:
        require(self.repeats >= 1, f"repeats must be at least 1, got {self.repeats}.")
        require(
            len(self.batches) > 0 and min(self.batches) >= 1,
            f"batches must be at least one, each at least 1, got {self.batches}.",
        )


@dataclass(frozen=True)
class FidelityConfig:
    """`evaluate.py --config fidelity`: the law of speculative sample paths against the target's.

    Attributes:
        base: data, pair, process and sigma of the trained case; its longest horizon.
        rules: those that sample.
        contexts: test contexts of the trained case.
        num_paths: sample paths a context.
        path_chunk: paths decoded at once; None for all.
        num_draft: K.
        tolerance: of shared_noise, in sigmas.
        bias: of resample and as_released.
        synthetic_patches: horizon of the synthetic cases, in patches.
        permutations: of the tests; the smallest p-value is 1 over one more.
        out: directory of the results.
    """

    base: EvaluateConfig = field(default_factory=EvaluateConfig)
    rules: tuple[str, ...] = (
        "maximal",
        "block",
        "residual",
        "resample",
        "shared_noise",
    )
    contexts: int = 4
    num_paths: int = 500
    path_chunk: int | None = None
    num_draft: int = 3
    tolerance: float = 0.1
    bias: float = 1.0
    synthetic_patches: int = 12
    permutations: int = 999
    out: str = "results/fidelity"

    def __post_init__(self) -> None:
        for name in ("contexts", "num_draft", "synthetic_patches", "permutations"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, got {value}.")
        require(self.num_paths >= 2, f"num_paths must be at least 2, got {self.num_paths}.")
        require(0 <= self.tolerance < math.inf, f"tolerance must be >= 0, got {self.tolerance}.")
        require(1 <= self.bias < math.inf, f"bias must be at least 1, got {self.bias}.")
