"""The contracts of decoding: process, draft and rule. Read this first."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.config import whole_number
from stride_jax.decoding.scale import Correlation
from stride_jax.errors import InputError
from stride_jax.types import Density, PatchDistribution


def check_predictions(
    prediction: PatchDistribution, expected: tuple[int, ...], layout: str, call: str
) -> None:
    """Raises InputError unless every part of a prediction has the shape of its patches.

    What is reported has one axis more, of the Q outputs.

    Args:
        prediction: what a forecaster returned.
        expected: shape of what was asked for.
        layout: the same in letters.
        call: words for the call that returned it.
    """
    for name, value in (("mean", prediction.mean), ("log variance", prediction.logvar)):
        if value is not None and value.shape != expected:
            raise InputError(
                f"{call} returned a {name} of shape {value.shape}; expected {layout} = {expected}."
            )
    reported = prediction.reported
    if reported is not None and reported.shape[:-1] != expected:
        raise InputError(
            f"{call} reported outputs of shape {reported.shape}; expected {layout} with an axis "
            f"of the outputs behind it, {(*expected, 'Q')}."
        )
    for part in jax.tree.leaves(prediction.density):
        if part.shape[: len(expected)] != expected:
            raise InputError(
                f"{call} returned a density with an array of shape {part.shape}; expected {layout} "
                f"= {expected} in front."
            )


class Traits(NamedTuple):
    """Facts about a process that `forecast` needs; a process without them has these defaults.

    Attributes:
        supports_padding: `prepare` takes a length, so that histories of different lengths are
            decoded together. Without it they are decoded apart, length by length.
        context_len: steps of a context it sees, the last ones; None for all.
        normalises: it moves with the level and the scale of a history, so it may be given the
            history standardised. Without it the history is given as it is.
        starts_empty: `prepare` also takes a length of 0 or less, a context of nothing but padding.
        masks_steps: padding is masked step by step, so that a length may be any number of steps.
            Without it a length is a whole number of patches.
        reports: what each of the Q values of `PatchDistribution.reported` is: a number is the level
            of a quantile, a word such as `mean` names anything else. Each is a value at the level
            of the series, which `forecast` scales, moves and cuts off at 0 like a path; so a spread
            cannot be reported. What is not named here is not kept by the decoders.
        predicts_density: its predictions have a `PatchDistribution.density`, from which sample
            paths are drawn in place of a Gaussian with sigma. A density of a process that does not
            say so is not used.
    """

    supports_padding: bool = False
    context_len: int | None = None
    normalises: bool = False
    starts_empty: bool = False
    reports: tuple[float | str, ...] = ()
    masks_steps: bool = False
    predicts_density: bool = False


def traits_of(process: Any) -> Traits:
    """The traits of a process (or draft), with the default of each that it does not have.

    Raises:
        InputError: a trait that is no bool, a context_len that is no whole number above 0, or
            reports that are no tuple of levels inside (0, 1) and words.
    """
    call: Any = {n: getattr(process, n, default) for n, default in Traits._field_defaults.items()}
    values = Traits(**call)
    name = type(process).__name__
    bools = ("supports_padding", "normalises", "starts_empty", "masks_steps", "predicts_density")
    for trait in bools:
        value = getattr(values, trait)
        if not isinstance(value, bool | np.bool_):
            raise InputError(f"{trait} of {name} must be True or False, got {value!r}.")
    if not (isinstance(values.reports, tuple) and all(map(_names_output, values.reports))):
        raise InputError(
            f"reports of {name} must be a tuple of levels inside (0, 1) and words, got "
            f"{values.reports!r}."
        )
    if values.context_len is None:
        return values
    length = whole_number(f"context_len of {name}", values.context_len, least=1)
    return values._replace(context_len=length)


def length_unit(process: Any) -> int:
    """Steps that a length of a context is a whole number of: 1, or those of a patch."""
    return 1 if traits_of(process).masks_steps else int(process.patch_len)


def _names_output(name: Any) -> bool:
    """Whether `name` can stand in `Traits.reports`."""
    return isinstance(name, str) or (isinstance(name, float) and 0 < name < 1)


def check_process(target: Any) -> None:
    """Raises InputError for a target without the methods that the decoders call."""
    needed = ("patch_len", "prepare", "start", "verify", "commit")
    missing = [name for name in needed if not hasattr(target, name)]
    if missing:
        raise InputError(
            f"target must be a process, such as window_process(...), got {target!r}; it has no "
            f"{', '.join(missing)}."
        )


def density_of(process: Any, prediction: PatchDistribution) -> Density | None:
    """The density of a prediction that sample paths are drawn from; None for a Gaussian.

    Raises:
        InputError: the process says that it predicts densities, and did not.
    """
    if not traits_of(process).predicts_density:
        return None
    if prediction.density is None:
        raise InputError(
            f"{type(process).__name__} says that it predicts densities, and its prediction has "
            "none; set PatchDistribution.density, or leave out the trait predicts_density."
        )
    return prediction.density


def density_at(density: Density, place: Any) -> Density:
    """The densities at one place, or at several, of a stack of patches."""
    out: Density = jax.tree.map(lambda x: x[place], density)
    return out


def for_paths(process: Any, paths: int) -> Any:
    """A process or draft in the form for so many paths of a series at a time.

    What `prepare` returns is shared by the paths of a series. A process that has a faster form
    where there is one path returns it from a method `for_paths(paths)`.
    """
    return process.for_paths(paths) if hasattr(process, "for_paths") else process


def prepare_draft(
    draft: Any, target: Any, memory: Any, context: jax.Array, length: jax.Array | None
) -> Any:
    """The draft's memory of a context.

    A draft that lies inside its target's weights reads the target's memory of that context, by a
    method `prepare_beside(target, memory)`, so that the target's prefill runs once for both.
    """
    if hasattr(draft, "prepare_beside"):
        return draft.prepare_beside(target, memory)
    return draft.prepare(context, length)


def check_parameters(process: Any) -> None:
    """Raises InputError where a number inside a process is NaN, with its place in the pytree."""
    for place, leaf in jax.tree_util.tree_leaves_with_path(process):
        kind = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if jnp.issubdtype(kind, jnp.inexact) and np.isnan(np.asarray(leaf)).any():
            raise InputError(
                f"the target's parameters{jax.tree_util.keystr(place)} hold NaN, so its forecasts "
                "would be NaN; load or train the model again."
            )


class Process(Protocol):
    """How a forecaster is rolled over its own output.

    A process is a pytree (parameters inside it are traced). It splits what it knows in two: the
    memory of a context, which never changes and is shared by all sample paths of it, and the state
    of one path. All methods are pure and work on one series; the decoders vmap them.

    The properties of `Traits` may be left out; `traits_of` has their defaults.
    """

    @property
    def patch_len(self) -> int:
        """P, steps in a patch."""

    @property
    def context_len(self) -> int | None:
        """Steps of a context it sees, or None for all; see `Traits`."""

    @property
    def supports_padding(self) -> bool:
        """Whether `prepare` takes a length; see `Traits`."""

    @property
    def normalises(self) -> bool:
        """Whether it moves with the level and scale of a history; see `Traits`."""

    @property
    def reports(self) -> tuple[float | str, ...]:
        """Names of the outputs it reports beside what it feeds back; see `Traits`."""

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> Any:
        """Memory of a context `[L, C]`; everything that has to be done once.

        Args:
            context: the history at its end.
            length: int32, steps of the history, a whole number of patches unless the process
                masks single steps; those before are padding that must not change anything. None
                for all L.

        Raises:
            InputError: a length is given to a process that has no mask for padding.
        """

    def start(self, memory: Any, room: int) -> Any:
        """The state of a path before its first patch, with room for `room` patches."""

    def verify(
        self, memory: Any, state: Any, proposals: jax.Array
    ) -> tuple[PatchDistribution, Any]:
        """The predictions after 0, 1, ..., K proposals `[K, P, C]`, each `[K + 1, P, C]`.

        The state that comes back has seen the proposals but kept none; see `commit`.
        """

    def step(self, memory: Any, state: Any, patch: jax.Array) -> tuple[PatchDistribution, Any]:
        """Predicts `[P, C]` after one more patch `[P, C]`, without keeping it; for drafting."""

    def commit(self, state: Any, patches: jax.Array, count: jax.Array) -> Any:
        """Keeps the first `count` of `patches [K + 1, P, C]`; count may be 0.

        The first K are the proposals that `verify` or `step` have seen.
        """

    def drafting(self) -> Process:
        """This forecaster in the form that proposes: it has not seen its last proposal."""


class Proposals(NamedTuple):
    """K proposals and the distributions they were drawn from, each `[K, P, C]`.

    Attributes:
        patches: `mean + sigma * noise`.
        mean: of the draft's distributions.
        sigma: std they were drawn with.
        logvar: the draft's learned log variance, or None.
    """

    patches: jax.Array
    mean: jax.Array
    sigma: jax.Array
    logvar: jax.Array | None


class Draft(Protocol):
    """The contract of a draft: it predicts the next patches. A draft is a pytree.

    Methods work on one series, see `Process`.

    A draft never sees the noise, nor sigma, and does not make its proposals: whatever it predicts,
    an exact rule stays exact. What is not finite is never accepted. A draft that predicts one patch
    at a time is a `StepwiseDraft`; one that predicts all K at once, and moves the later ones by the
    errors of those before, is a `RespondingDraft`. A draft that can propose only so many patches in
    a round says how many in `longest_round`, which `auto` and `calibrate` respect.
    """

    @property
    def patch_len(self) -> int:
        """P, steps in a patch."""

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> Any:
        """Memory of a context `[L, C]`, shared by all its sample paths.

        `length`: see `processes.Process`; a draft may take padding for values, as its proposals
        are verified.
        """

    def start(self, memory: Any, room: int) -> Any:
        """The state of a path before its first patch."""

    def predict_next(
        self, memory: Any, state: Any, shape: tuple[int, int, int]
    ) -> tuple[PatchDistribution, Any]:
        """Predicts the next K patches, or the first of them alone.

        Args:
            memory: of the context.
            state: of the path.
            shape: `(K, P, C)`.

        Returns:
            The distributions of all K, `[K, P, C]`, or of the first, `[1, P, C]`, if the others
            depend on the proposals before them; and a state for `step` and `commit`.
        """

    def commit(self, state: Any, patches: jax.Array, count: jax.Array) -> Any:
        """Keeps the first `count` of `patches [K + 1, P, C]`."""


class StepwiseDraft(Draft, Protocol):
    """A draft that predicts each patch given the proposals before it."""

    def step(self, memory: Any, state: Any, patch: jax.Array) -> tuple[PatchDistribution, Any]:
        """The distribution `[P, C]` after one more proposal `[P, C]`, without keeping it."""


class RespondingDraft(Draft, Protocol):
    """A draft of all K patches at once whose later means respond to its own earlier errors.

    `predict_next` returns the K means of a path without errors.
    """

    def respond(self, memory: Any, state: Any, errors: jax.Array) -> jax.Array:
        """The shift of the K means by the errors of the proposals, `[K, P, C]`; linear in them.

        The exact rules need that place k responds to the errors of the places before k alone;
        `stride_jax.testing.check_draft` tests it.

        Args:
            memory: of the context.
            state: of the path, as `predict_next` returned it.
            errors: `[K, P, C]`, each proposal minus its mean, in the units of the series.
        """


class Round(NamedTuple):
    """One round of drafting and verifying, for one series. Place i holds proposal i + 1.

    Attributes:
        proposals: `[K, P, C]`, `draft_mean + draft_sigma * noise`; with a correlation the noise is
            multiplied by its factor first, see `scale.apply`.
        noise: `[K, P, C]`, standard normal; 0 for rules that propose means.
        draft_mean: `[K, P, C]`.
        draft_sigma: `[K, P, C]`, std the proposals were drawn with.
        target_mean: `[K + 1, P, C]`; entry i is the target's mean after i proposals.
        target_sigma: `[K + 1, P, C]`, std of the target's predictions.
        draft_logvar: `[K, P, C]`, the draft's learned log variance, or None.
        fresh: `[K + 1, P, C]`, standard normal noise of the patches of this round; sampled
            proposals have not used it.
        length: int32, 0 to K, proposals that count; those from there on were not drafted.
        correlation: of the errors of a patch, shared by all distributions here; None for none.
        density: of each step after 0, 1, ..., K proposals, its arrays `[K + 1, P, C, ...]`; None
            where the target predicts Gaussians. With one the target's sigma is only the unit of a
            gap.
        keys: `[K + 1]`, of the noise `fresh`, for draws from the density.
        missing: int32, patches that the forecast lacks at the start of the round; None if unknown.
    """

    proposals: jax.Array
    noise: jax.Array
    draft_mean: jax.Array
    draft_sigma: jax.Array
    target_mean: jax.Array
    target_sigma: jax.Array
    draft_logvar: jax.Array | None
    fresh: jax.Array
    length: jax.Array
    correlation: Correlation | None = None
    density: Density | None = None
    keys: jax.Array | None = None
    missing: jax.Array | None = None


class Outcome(NamedTuple):
    """The decision of a rule on one round.

    Attributes:
        num_accepted: int32, 0 to `length`: the leading proposals that are kept as context.
        patch: `[P, C]`, what follows them: recovered, or the bonus if all were accepted.
        emitted: `[K, P, C]`, what is put out where proposals are accepted; None for themselves.
        log_ratio: `[K]`, what was compared, for the trace; None if the rule has no such number.
        threshold: `[K]`, what it was compared with.
        overflow: int32, 1 if a bounded loop ran out and the patch is not what it should be.
        added: int32, 1 if `patch` follows the accepted proposals, 0 if the round ends with the last
            of them.
    """

    num_accepted: jax.Array
    patch: jax.Array
    emitted: jax.Array | None = None
    log_ratio: jax.Array | None = None
    threshold: jax.Array | None = None
    overflow: jax.Array | int = 0
    added: jax.Array | int = 1


class Rule:
    """An acceptance rule: which leading proposals of a round stay, and which patch follows them.

    A rule is a frozen dataclass registered as a pytree. Its fields are its settings; they are
    traced, so a sweep over them compiles once. A rule of your own needs `decide` alone:

        @jax.tree_util.register_dataclass
        @dataclass(frozen=True)
        class AcceptAll(Rule):
            def decide(self, key, current):
                return Outcome(current.length, target_draw(current, current.length))

    Attributes:
        exact: the output follows the distribution of the target process, whatever the draft does.
        guarantee: what the output follows, in words for the tables.
        proposes: sample draws proposals from the draft's distribution, mean takes its means (noise
            0), patch_noise draws with the noise that the target would use for the same patch.
        scales: tied rules need one sigma for target and draft; a free rule allows the draft a
            sigma of its own.
        correlated: it also takes a `PatchCovariance`, as its gaps and draws come from
            `rules.common`, and what it does with sigma itself goes through `scale`.
        densities: it also takes a target that predicts a density which is no Gaussian.
    """

    exact: ClassVar[bool] = False
    guarantee: ClassVar[str] = "none stated"
    proposes: ClassVar[Literal["sample", "mean", "patch_noise"]] = "sample"
    scales: ClassVar[Literal["tied", "free"]] = "tied"
    correlated: ClassVar[bool] = False
    densities: ClassVar[bool] = False

    def check(self) -> None:
        """Raises InputError for settings that are concrete and out of range."""

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        """Decides one round of one path; consumes the key."""
        raise NotImplementedError
