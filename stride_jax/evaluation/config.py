"""Configuration of `evaluate.py`: what experiments share, and one small config for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro
from annotated_types import Ge, MinLen

from stride_jax.config import (
    Count,
    NotNegative,
    Positive,
    Seed,
    check_factor,
    check_fields,
    require,
)
from stride_jax.data.config import DataConfig

Rules = tuple[str, ...]
Lengths = Count | Literal["auto"]
"""K, or that which is fastest on this device."""


@dataclass(frozen=True)
class Setup:
    """The series and the models of an experiment.

    Attributes:
        data: The series; context_len is the target's.
        target: Checkpoint of the target, or its name in stride_jax/assets.
        drafts: Checkpoints of drafts, or their names in stride_jax/assets; or layer-skip:N (the
            target's first N layers), seasonal:PERIOD, last-value, nearest. Each has its own rows.
        process: window (every patch sees the last L steps), cached (the sequence grows; one causal
            pass verifies a round), or auto: cached for models trained with causal normalisation.
        sigma: Std of the target's distribution in standardised units; None calibrates it on the
            validation split (the root of the one-patch validation MSE).
        calibration_stride: Steps between two validation windows that sigma is calibrated on.
        horizons: Steps to forecast; each has its own rows.
        stride: Steps between two scored windows; 1 scores every window.
        batch_size: Windows decoded together when scoring.
        seed: Of the one key that everything random is derived from; below 2**32.
        out: Directory of the results.
    """

    data: DataConfig = field(
        default_factory=lambda: DataConfig(context_len=504, variables="separate")
    )
    target: str = "beijing_target.safetensors"
    drafts: Annotated[tuple[str, ...], MinLen(1)] = ("beijing_draft.safetensors",)
    process: Literal["auto", "window", "cached"] = "auto"
    sigma: Positive | None = None
    calibration_stride: Count = 7
    horizons: Annotated[tuple[Count, ...], MinLen(1)] = (168,)
    stride: Count = 1
    batch_size: Count = 64
    seed: Seed = 0
    out: str = "results"

    def __post_init__(self) -> None:
        check_fields(self)


Shared = Annotated[Setup, tyro.conf.arg(name="")]
"""A setup whose fields are flags of their own: `--target`, not `--setup.target`."""


def _check_paths(num_paths: int) -> None:
    """Raises InputError for a number of sample paths that has no CRPS."""
    message = f"num_paths must be at least 2, or 0 for mean paths only, got {num_paths}."
    require(num_paths >= 2 or num_paths == 0, message)


@dataclass(frozen=True)
class QuickConfig:
    """A first look: one path per window, timed and scored in the same calls.

    Attributes:
        setup: Series and models.
        rules: Acceptance rules with their settings, such as mean:tolerance=0.2 or block.
        num_draft: K, patches proposed per round; auto takes for each rule what is fastest on this
            device by the costs that were measured or estimated, and leaves out a rule that does
            not pay (see docs/decoding.md).
        windows: Test windows, spread over the split; all of them where there are fewer.
        plot_variable: Variable in the picture; the first where it is empty or not in the series.
    """

    setup: Shared = field(default_factory=Setup)
    rules: Rules = ("mean:tolerance=0.2", "block")
    num_draft: Lengths = 6
    windows: Count = 80
    plot_variable: str = ""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class EvaluateConfig:
    """Target only, draft only and speculative decoding on one test set.

    Attributes:
        setup: Series and models.
        rules: Acceptance rules with their settings, such as mean:tolerance=0.2 or block; empty for
            none.
        num_draft: K, patches proposed per round; auto takes for each rule what is fastest on this
            device by the costs that were measured or estimated, and leaves out a rule that does
            not pay (see docs/decoding.md).
        draft_length: fixed (always K), or fewer while proposals are rejected: threshold, or gain
            with a setting, as in gain:draft_cost=0.1; or up to where the draft is unsure, as in
            fallback:threshold=0.5.
        both_processes: Also decode the target only under its other process.
        diagonal_sigma: Calibrate one std for each step and variable of a patch, not one for all.
        learned_scale: Models with a variance of their own draw with it instead of sigma, in all
            rows of sample paths; needs a rule that allows it (residual).
        num_paths: Sample paths per window; at least 2, or 0 for mean paths only.
        season: Steps that the seasonal-naive forecast repeats.
        timing_batch: Windows decoded together when timing.
        repeats: Timed calls, each on other windows; the median counts.
        plot_variable: Variable in the picture; the first where it is empty or not in the series.
    """

    setup: Shared = field(default_factory=Setup)
    rules: Rules = ("maximal", "resample")
    num_draft: Lengths = 3
    draft_length: str = "fixed"
    both_processes: bool = False
    diagonal_sigma: bool = False
    learned_scale: bool = False
    num_paths: int = 4
    season: Count = 24
    timing_batch: Count = 8
    repeats: Count = 5
    plot_variable: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        _check_paths(self.num_paths)
        context = self.setup.data.context_len
        require(
            self.season <= context,
            f"season {self.season} is longer than data.context_len {context}; set --season to "
            "what repeats.",
        )


@dataclass(frozen=True)
class TuneConfig:
    """K and tolerance by measured time on the validation split, within an error.

    Attributes:
        setup: Series and models; process auto tries both where the model allows.
        rules: Names of the acceptance rules to try, with other settings than the tolerance.
        output: The mean path, or sample paths.
        max_error: Error (MSE of mean paths, CRPS of sample paths) that is allowed above the
            target's, as a share of it.
        max_distance: Mean squared distance from the target's forecast that is allowed, as a share
            of the draft's; None for any.
        num_drafts: K to try; those longer than the forecast are cut.
        tolerances: Tolerances to try with the rules that have one, in sigmas.
        num_paths: Sample paths per window.
        timing_batch: Windows decoded together when timing.
        repeats: Timed calls, each on other windows; the median counts.
    """

    setup: Shared = field(default_factory=Setup)
    rules: Annotated[Rules, MinLen(1)] = ("mean",)
    output: Literal["mean", "sample"] = "mean"
    max_error: NotNegative = 0.005
    max_distance: NotNegative | None = 0.1
    num_drafts: Annotated[tuple[Count, ...], MinLen(1)] = (1, 2, 3, 5, 8)
    tolerances: Annotated[tuple[NotNegative, ...], MinLen(1)] = (
        0.02, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4,
    )  # fmt: skip
    num_paths: Annotated[int, Ge(2)] = 2
    timing_batch: Count = 1
    repeats: Count = 5

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class SweepConfig:
    """One pair under every setting of its rules.

    Each rule is measured with every value of the settings it has: bias and mse_tolerance (resample,
    as_released), tolerance (mean, shared_noise). All rules depend on K and sigma; rules of means
    take sigma as the unit of the gap.

    Attributes:
        setup: Series and models.
        rules: Names of the acceptance rules.
        num_drafts: K.
        num_paths: Sample paths per window; at least 2, or 0 where all rules give mean paths.
        sigmas: Stds of the target's distribution in standardised units; empty for the setup's.
        biases: Biases.
        mse_tolerances: Squared-error tolerances.
        tolerances: Tolerances of the gap of the means, in sigmas.
    """

    setup: Shared = field(default_factory=lambda: Setup(out="results/sweep"))
    rules: Annotated[Rules, MinLen(1)] = ("maximal", "block", "resample", "mean", "shared_noise")
    num_drafts: Annotated[tuple[Count, ...], MinLen(1)] = (1, 3, 5, 10)
    num_paths: int = 2
    sigmas: tuple[Positive, ...] = ()
    biases: Annotated[tuple[Annotated[float, Ge(1)], ...], MinLen(1)] = (1.0,)
    mse_tolerances: Annotated[tuple[NotNegative, ...], MinLen(1)] = (0.0,)
    tolerances: Annotated[tuple[NotNegative, ...], MinLen(1)] = (0.1,)

    def __post_init__(self) -> None:
        check_fields(self)
        _check_paths(self.num_paths)


@dataclass(frozen=True)
class SpeedConfig:
    """Times, acceptances and memory of one path per series, by batch size.

    Attributes:
        setup: Series and models.
        rules: Acceptance rules with their settings.
        num_draft: K, patches proposed per round; auto takes for each rule what is fastest on this
            device by the costs that were measured or estimated, and leaves out a rule that does
            not pay (see docs/decoding.md).
        both_processes: Also decode the target only under its other process.
        batches: Series decoded together.
        repeats: Timed calls, each on other test windows; the median counts.
    """

    setup: Shared = field(default_factory=lambda: Setup(out="results/speed"))
    rules: Rules = ("mean:tolerance=0.2", "block")
    num_draft: Lengths = 5
    both_processes: bool = True
    batches: Annotated[tuple[Count, ...], MinLen(1)] = (1, 8, 64)
    repeats: Count = 9

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class FidelityConfig:
    """The distribution of speculative sample paths against the target's.

    Attributes:
        setup: Series and models of the trained case.
        rules: Acceptance rules with their settings; those that sample.
        contexts: Test contexts of the trained case.
        num_paths: Sample paths per context.
        path_chunk: Paths decoded together; None for all.
        num_draft: K, patches proposed per round.
        synthetic_patches: Horizon of the synthetic cases, in patches.
        permutations: Of the tests; the smallest p-value is 1 over one more.
    """

    setup: Shared = field(default_factory=lambda: Setup(out="results/fidelity"))
    rules: Rules = ("maximal", "block", "residual", "resample", "shared_noise")
    contexts: Count = 4
    num_paths: Annotated[int, Ge(2)] = 500
    path_chunk: Count | None = None
    num_draft: Count = 3
    synthetic_patches: Count = 12
    permutations: Count = 999

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class LatencyConfig:
    """How long decoding takes by size, batch and K, with new models without training.

    Acceptance is forced to 1 (the best case) and, in one row per cell, measured with `maximal`.

    Attributes:
        layers: Of the targets.
        d_model: Width of the targets.
        num_heads: Of the targets.
        d_ff: Of the targets.
        patch_len: P.
        draft_factor: Size of the drafts.
        context_patches: Patches of context.
        num_vars: C.
        batches: Series decoded together.
        patches: Patches decoded; the horizon over P.
        num_drafts: K; those below the number of patches.
        processes: window, cached.
        measured_num_draft: K of the rows with measured acceptance.
        sigma: Std there, in units of the standardised context.
        repeats: Timed calls; the median counts.
        max_seconds: A cell whose decode by the target only would take longer is left out and
            listed, by an estimate at `gflops`.
        gflops: Billions of operations per second, for that estimate.
        seed: Of weights and contexts; below 2**32.
        out: Directory of the results.
    """

    layers: Annotated[tuple[Count, ...], MinLen(1)] = (1, 8)
    d_model: int = 1024
    num_heads: int = 8
    d_ff: int = 2048
    patch_len: int = 96
    draft_factor: float = 0.25
    context_patches: Count = 16
    num_vars: Annotated[tuple[Count, ...], MinLen(1)] = (1, 7)
    batches: Annotated[tuple[Count, ...], MinLen(1)] = (1, 8, 64)
    patches: Annotated[tuple[Count, ...], MinLen(1)] = (4, 8, 35)
    num_drafts: Annotated[tuple[Count, ...], MinLen(1)] = (1, 4, 8)
    processes: Annotated[tuple[Literal["window", "cached"], ...], MinLen(1)] = ("cached", "window")
    measured_num_draft: Count = 3
    sigma: Positive = 1.0
    repeats: Count = 5
    max_seconds: Positive = 1.0
    gflops: Positive = 100.0
    seed: Seed = 0
    out: str = "results/latency"

    def __post_init__(self) -> None:
        check_fields(self)
        check_factor(self.draft_factor)


@dataclass(frozen=True)
class AcceleratorConfig:
    """Everything that is measured on an accelerator, within minutes, in a run that can be resumed.

    The untrained pairs have the sizes of `evaluation.programs`: patches of 96, a context of 16.

    Attributes:
        setup: Series and models of the trained pair, whose proposals are accepted by the rules;
            every horizon and every draft is measured.
        rules: Acceptance rules of the trained pair, with their settings.
        pair_num_draft: K of the trained pair, or one less than its patches where these are fewer.
        layers: Of the untrained targets; every proposal of their drafts is accepted.
        d_model: Width of the untrained targets.
        num_vars: C.
        batches: Series decoded together, of both pairs.
        patches: Patches decoded by the untrained pairs.
        num_draft: K of the untrained pairs; the first one in every cell, the others beside the
            deepest target with one variable.
        kinds: Drafts of the untrained pairs, see `programs.Setting`; the first two in every cell,
            the others like the other K.
        dtypes: Of computation; the first one in every cell, the others like the other K.
        training_batch: Windows of a training step.
        training_steps: Steps of one timed stretch.
        exact_rules: Rules whose exactness is tested on the device.
        exact_paths: Sample paths of that test.
        golden: Directory of the recorded outputs for the test of parity.
        repeats: Timed calls; the median counts.
        processes: Processes that compile; 0 for all in one.
        minutes: After so many nothing is begun any more.
    """

    setup: Shared = field(
        default_factory=lambda: Setup(
            drafts=("beijing_draft.safetensors", "beijing_linear.safetensors"),
            horizons=(168, 672),
            out="results/accelerator",
        )
    )
    rules: Rules = ("mean:tolerance=0.2", "maximal", "block")
    pair_num_draft: Count = 13
    layers: Annotated[tuple[Count, ...], MinLen(1)] = (1, 8)
    d_model: int = 1024
    num_vars: Annotated[tuple[Count, ...], MinLen(1)] = (1, 7)
    batches: Annotated[tuple[Count, ...], MinLen(1)] = (1, 8, 64, 512)
    patches: Count = 35
    num_draft: Annotated[tuple[Count, ...], MinLen(1)] = (8, 34)
    kinds: Annotated[tuple[str, ...], MinLen(1)] = (
        "autoregressive", "linear", "multi-patch", "seasonal:96",
    )  # fmt: skip
    dtypes: Annotated[tuple[Literal["float32", "bfloat16"], ...], MinLen(1)] = (
        "float32", "bfloat16",
    )  # fmt: skip
    training_batch: Count = 32
    training_steps: Count = 50
    exact_rules: Rules = ("maximal", "block", "residual")
    exact_paths: Annotated[int, Ge(100)] = 30_000
    golden: str = "tests/golden"
    repeats: Count = 9
    processes: Annotated[int, Ge(0)] = 12
    minutes: Positive = 7.0

    def __post_init__(self) -> None:
        check_fields(self)
