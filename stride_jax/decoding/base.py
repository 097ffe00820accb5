"""The contracts of decoding: process, draft and rule. Read this first."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import jax

from stride_jax.decoding.scale import Correlation
from stride_jax.types import Density, PatchDistribution


class Process(Protocol):
    """How a forecaster is rolled over its own output.

    A process is a pytree (parameters inside it are traced). It splits what it knows in two: the
    memory of a context, which never changes and is shared by all sample paths of it, and the state
    of one path. All methods are pure and work on one series; the decoders vmap them.

    The properties of `traits.Traits` may be left out; `traits.traits_of` has their defaults.
    """

    @property
    def patch_len(self) -> int:
        """P, steps in a patch."""

    @property
    def context_len(self) -> int | None:
        """Steps of a context it sees, or None for all; see `traits.Traits`."""

    @property
    def supports_padding(self) -> bool:
        """Whether `prepare` takes a length; see `traits.Traits`."""

    @property
    def normalises(self) -> bool:
        """Whether it moves with the level and scale of a history; see `traits.Traits`."""

    @property
    def reports(self) -> tuple[float | str, ...]:
        """Names of the outputs it reports beside what it feeds back; see `traits.Traits`."""

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

        The first `count - 1` are proposals that `verify` or `step` have seen. The last one that is
        kept is often another patch, which the rule put in the place of a rejected proposal.
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
