"""A decode compiled once for one shape, for a server: `build_decoder`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from stride_jax.checkpoints.pair import Pair
from stride_jax.config import whole_number
from stride_jax.decoding.base import Process, Rule
from stride_jax.decoding.checks import Inputs, check_inputs
from stride_jax.decoding.draft_length import DraftLength, Fixed
from stride_jax.decoding.rounds import Model
from stride_jax.decoding.rules import Maximal
from stride_jax.decoding.scale import PatchCovariance
from stride_jax.decoding.speculative import check_choices, decode, speculates
from stride_jax.decoding.traits import length_unit
from stride_jax.decoding.types import DecodeConfig, DecodeInfo
from stride_jax.errors import InputError
from stride_jax.forecasting.settings import as_pair

Platform = Literal["cpu", "cuda", "rocm", "tpu"]
Decoded = tuple[jax.Array, DecodeInfo]


class Cost(NamedTuple):
    """The cost of one call as the compiler states it; a loop's body counts once, not by its rounds.

    Attributes:
        flops: floating-point operations.
        bytes_accessed: bytes read and written by all operations.
        peak_bytes: bytes of the arguments (parameters among them), results and scratch memory.
    """

    flops: float
    bytes_accessed: float
    peak_bytes: int


class Shapes(NamedTuple):
    """The shapes that a decoder is compiled for.

    Attributes:
        context: `[L, C]` or `[B, L, C]`.
        sigma: `()`, `[C]`, `[P, C]`, or with a B in front of the last.
        padded: whether a call also gives `lengths`, a whole number for each series.
    """

    context: tuple[int, ...]
    sigma: tuple[int, ...]
    padded: bool

    @classmethod
    def of(cls, inputs: Inputs) -> Shapes:
        """The shapes of inputs, whose sigma is no covariance."""
        sigma = plain(inputs.sigma)
        return cls(np.shape(inputs.context), np.shape(sigma), inputs.lengths is not None)

    def check(self, inputs: Inputs) -> None:
        """Raises InputError for inputs of other shapes."""
        given = Shapes.of(inputs)
        if given != self:
            raise InputError(
                f"this decoder takes {self.words()}, got {given.words()}; build another one with "
                "build_decoder for other shapes."
            )

    def words(self) -> str:
        """The shapes in words."""
        lengths = "lengths" if self.padded else "no lengths"
        return f"a context of shape {self.context}, a sigma of shape {self.sigma} and {lengths}"

    def inputs(self, key: Any) -> Inputs:
        """Arguments of these shapes without values, for `key`."""
        struct: Any = jax.ShapeDtypeStruct
        context, sigma = (struct(shape, jnp.float32) for shape in (self.context, self.sigma))
        lengths = struct(self.context[:-2], jnp.int32) if self.padded else None
        return Inputs(key, context, sigma, None, lengths)


@dataclasses.dataclass(frozen=True, eq=False)
class Decoder:
    """A compiled `decode`; build it with `build_decoder`.

    Its parameters lie on the device, so a call passes a key, a context and sigma. It returns what
    `decode` returns, and it never traces or compiles again.

    Attributes:
        model: target, draft, rule and draft length.
        config: horizon, K, paths.
        shapes: of context, sigma and lengths.
    """

    model: Model
    config: DecodeConfig
    shapes: Shapes
    _key_kind: Any = dataclasses.field(repr=False)
    _leaves: list[jax.Array] = dataclasses.field(repr=False)
    _lowered: jax.stages.Lowered = dataclasses.field(repr=False)
    _program: jax.stages.Compiled = dataclasses.field(repr=False)

    def __call__(
        self, key: jax.Array, context: Any, sigma: Any, lengths: Any | None = None
    ) -> Decoded:
        """Decodes; see `decode`.

        Args:
            key: a typed PRNG key of the default kind, or its raw key data; folded, not consumed.
            context: in the shape of the decoder; taken as float32.
            sigma: in the shape of the decoder; taken as float32.
            lengths: `[B]` (a scalar for one series), for a padded decoder.

        Returns:
            `(forecast, info)`, as `decode` returns them.

        Raises:
            InputError: another shape than the decoder was built for; see also `decode`.
        """
        inputs = Inputs(key, context, sigma, None, lengths)
        self._check(inputs)
        inputs = inputs._replace(key=_typed(key, self._key_kind)).as_arrays()
        out: Decoded = self._program(self._leaves, inputs)
        return out

    def _check(self, inputs: Inputs) -> None:
        target, config = self.model.target, self.config
        inputs = inputs._replace(sigma=plain(inputs.sigma))
        speculative, unit = speculates(self.model, config), length_unit(target)
        check_inputs(inputs, target.patch_len, config, speculative=speculative, unit=unit)
        self.shapes.check(inputs)

    def lower(self) -> jax.stages.Lowered:
        """The lowered program; `lower().as_text()` is its StableHLO."""
        return self._lowered

    def cost(self) -> Cost:
        """Operations and bytes of a call, as the compiler counts them."""
        counts, sizes = self._program.cost_analysis() or {}, self._program.memory_analysis()
        parts = "argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes"
        return Cost(
            float(counts.get("flops", np.nan)),
            float(counts.get("bytes accessed", np.nan)),
            sum(getattr(sizes, part) for part in parts),
        )

    def save(self, path: str | Path, *, platforms: Sequence[Platform] = ("cpu",)) -> None:
        """Writes the decoder with its parameters into one file; `load_decoder` reads it.

        The file is a serialised `jax.export.Exported`: StableHLO of the whole decode, lowered for
        every platform named (none of them has to be there). jax alone runs it:
        `jax.export.deserialize(bytearray(data)).call(key, context, sigma)`, with the raw data of a
        key, float32 arrays, and int32 lengths last where the decoder is padded. It returns the
        forecast and a dict of the fields of `DecodeInfo`.

        Args:
            path: to write; must not exist.
            platforms: it is to run on.

        Raises:
            InputError: the path exists or has no directory, or an unknown platform.
        """
        path, known = Path(path), get_args(Platform)
        if path.exists():
            raise InputError(f"{path} exists; move it away or give another name.")
        if not path.parent.is_dir():
            raise InputError(f"there is no directory {str(path.parent)!r} to write {path.name} to.")
        if isinstance(platforms, str) or not platforms or not set(platforms) <= set(known):
            raise InputError(
                f"platforms must be a list of some of {', '.join(known)}, got {platforms!r}."
            )

        def run(key: Any, context: Any, sigma: Any, lengths: Any = None) -> Any:
            inputs = Inputs(key, context, sigma, None, lengths)
            forecast, info = _decoded(self.model, inputs, self.config)
            return forecast, {**info._asdict(), "trace": info.trace and info.trace._asdict()}

        key = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
        shapes = [shape for shape in self.shapes.inputs(key) if shape is not None]
        exported = jax_export.export(jax.jit(run), platforms=tuple(platforms))(*shapes)
        path.write_bytes(exported.serialize())


def build_decoder(
    pair: Pair | Process,
    config: DecodeConfig,
    rule: Rule | None = None,
    *,
    context_shape: tuple[int, ...],
    sigma_shape: tuple[int, ...] = (),
    padded: bool = False,
    draft_length: DraftLength | None = None,
) -> Decoder:
    """Compiles the decode of one shape, for a server that decodes it again and again.

    A decoder takes plain sigmas and each history as it is. A pair with a covariance is refused
    where sample paths are drawn, and one that is mirrored or has aggregations always: its paths
    would not be those of `forecast` of the same pair. A mean path does not use the covariance.

    Args:
        pair: target and draft, or a process alone, which is a target without a draft.
        config: horizon, K, paths and chunks.
        rule: acceptance rule with its settings; None for `Maximal()`.
        context_shape: `[L, C]` or `[B, L, C]`, of every call.
        sigma_shape: of every call: `()`, `[C]`, `[P, C]`, or with a B in front of the last.
        padded: every call gives `lengths`, for histories of different lengths.
        draft_length: proposals per round; None for always K.

    Raises:
        InputError: a pair that is mirrored or has aggregations, or one with a covariance and a rule
            that samples; a shape that is no tuple of sizes; see also `decode`.
    """
    pair = as_pair(pair)
    rule = Maximal() if rule is None else rule
    draft_length = Fixed() if draft_length is None else draft_length
    check_choices(pair.target, pair.draft, rule, draft_length, config)
    if pair.covariance is not None and rule.proposes != "mean":
        raise InputError(
            "a compiled decoder draws independent errors, and the pair has a covariance; build it "
            "of dataclasses.replace(pair, covariance=None), or call decode with the covariance."
        )
    if pair.mirrored or pair.aggregations:
        raise InputError(
            "a compiled decoder takes each history as it is, and the pair is mirrored or has "
            "aggregations; build it of dataclasses.replace(pair, mirrored=False, aggregations=()), "
            "or call forecast."
        )
    shapes = Shapes(
        _sizes("context_shape", context_shape, "[L, C]"),
        _sizes("sigma_shape", sigma_shape, "[C]"),
        bool(padded),
    )
    leaves, structure = jax.tree.flatten(Model(pair.target, pair.draft, rule, draft_length))
    leaves = jax.device_put(leaves)

    def program(leaves: list[jax.Array], inputs: Inputs) -> Decoded:
        return _decoded(jax.tree.unflatten(structure, leaves), inputs, config)

    # Traced, which checks the shapes, then compiled for the device of the parameters.
    key = jax.eval_shape(jax.random.key, 0)
    lowered = jax.jit(program).lower(leaves, shapes.inputs(key))
    model = jax.tree.unflatten(structure, leaves)
    return Decoder(model, config, shapes, key.dtype, leaves, lowered, lowered.compile())


def _decoded(model: Model, inputs: Inputs, config: DecodeConfig) -> Decoded:
    """The decode of a model."""
    return decode(
        inputs.key,
        inputs.context,
        target=model.target,
        draft=model.draft,
        sigma=inputs.sigma,
        config=config,
        rule=model.rule,
        draft_length=model.draft_length,
        lengths=inputs.lengths,
    )


def plain(sigma: Any) -> Any:
    """A sigma as it is; InputError for a covariance."""
    if isinstance(sigma, PatchCovariance):
        raise InputError("a compiled decoder takes no PatchCovariance; call decode with it.")
    return sigma


def _typed(key: jax.Array, kind: Any) -> jax.Array:
    """A checked key as a typed one of a kind, `key.dtype`.

    Raises:
        InputError: a key of another kind.
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(key)
    if key.dtype != kind:
        raise InputError(f"this decoder takes keys of the kind {kind}, got {key.dtype}.")
    return key


def _sizes(name: str, shape: Any, axes: str) -> tuple[int, ...]:
    """A shape as a tuple; InputError where it is none."""
    try:
        sizes = tuple(shape)
    except TypeError as error:
        raise InputError(
            f"{name} must be a tuple such as that of {axes}, got {shape!r}."
        ) from error
    return tuple(whole_number(f"each size of {name}", size, least=1) for size in sizes)
