"""A draft of K patches at once, corrected for the errors of its own proposals.

Such a draft predicts patch k from the context alone, while the target sees the proposals before it,
with their noise. The correction adds what these errors do to the mean of patch k, by a linear map
that is fitted to the target (`training.responses`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.decoding.drafts import as_draft
from stride_jax.decoding.scale import as_float32
from stride_jax.errors import InputError
from stride_jax.types import PatchDistribution


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CorrectedDraft:
    """Another draft whose later means respond to earlier errors; build it with `corrected_draft`.

    The errors are those of the proposals, `proposal - mean`. A mean depends on the errors before it
    alone and is known when the proposal is drawn, so the exact rules stay exact.

    Attributes:
        draft: predicts all K patches at once.
        responses: `[M, P, M, P]`, errors to later means, strictly lower triangular in the two M;
            the same for each variable.
    """

    draft: Any
    responses: jax.Array

    @property
    def patch_len(self) -> int:
        """P."""
        return int(self.draft.patch_len)

    @property
    def longest_round(self) -> int:
        """The most proposals of a round."""
        return len(self.responses)

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> Any:
        """See `Draft`."""
        return self.draft.prepare(context, length)

    def start(self, memory: Any, room: int) -> Any:
        """See `Draft`."""
        return self.draft.start(memory, room)

    def predict_next(
        self, memory: Any, state: Any, shape: tuple[int, int, int]
    ) -> tuple[PatchDistribution, Any]:
        """See `Draft`; as if no proposal had an error.

        Raises:
            InputError: a round of more proposals than the correction was fitted for.
        """
        if shape[0] > self.longest_round:
            raise InputError(
                f"this correction is for up to {self.longest_round} patches a round, got "
                f"num_draft {shape[0]}; lower num_draft, or fit it for more."
            )
        prediction: PatchDistribution
        prediction, state = self.draft.predict_next(memory, state, shape)
        return prediction, state

    def respond(self, memory: Any, state: Any, errors: jax.Array) -> jax.Array:
        """See `RespondingDraft`; one product."""
        del memory, state
        count = len(errors)
        return jnp.einsum("kpjq,jqc->kpc", self.responses[:count, :, :count], errors)

    def commit(self, state: Any, patches: jax.Array, count: jax.Array) -> Any:
        """See `Draft`."""
        return self.draft.commit(state, patches, count)


def corrected_draft(draft: Any, responses: Any) -> CorrectedDraft:
    """A draft of K patches at once with a correction for the errors of its proposals.

    Args:
        draft: predicts all K patches at once, such as `multi_patch_draft(...)`.
        responses: `[M, P, M, P]`, what the errors of a patch add to the means of later ones; M is
            the most proposals of a round. Concrete numbers.

    Raises:
        InputError: no draft, one that predicts patch by patch or has a response of its own, or
            responses of another shape, that are not finite, or not strictly lower triangular.
    """
    draft = as_draft(draft)
    for method, problem in (
        ("step", "predicts patch by patch, so it sees its own proposals"),
        ("respond", "has a response of its own"),
        ("prepare_beside", "reads its target's memory"),
    ):
        if hasattr(draft, method):
            raise InputError(
                f"the draft {type(draft).__name__} {problem}; correct one that predicts all "
                "patches from the context."
            )
    array = as_float32(responses)
    size = draft.patch_len
    if array.ndim != 4 or array.shape != (len(array), size, len(array), size) or not len(array):
        raise InputError(
            f"responses must be [M, P, M, P] with P = {size}, the draft's patch length, got shape "
            f"{array.shape}."
        )
    if not np.isfinite(array).all():
        raise InputError("responses hold values that are not finite; fit them again.")
    places = np.arange(len(array))
    # [M, P, M, P] -> [M, M]: whether errors of place i move place k
    moves = np.abs(array).max(axis=(1, 3)) > 0
    if moves[places[:, None] <= places[None]].any():
        raise InputError(
            "responses must be strictly lower triangular: a mean may depend on the errors of the "
            "places before it alone, or no rule is exact."
        )
    return CorrectedDraft(draft, jnp.asarray(array))
