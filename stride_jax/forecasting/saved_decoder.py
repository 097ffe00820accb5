"""A decoder from the file that `Decoder.save` writes: `load_decoder`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export as jax_export

from stride_jax.decoding.checks import Inputs, check_inputs
from stride_jax.decoding.types import DecodeConfig, DecodeInfo, Trace
from stride_jax.errors import InputError
from stride_jax.forecasting.decoder import Decoded, Shapes, plain


class Saved(NamedTuple):
    """A decoder as its file states it.

    Attributes:
        key: shape of the raw data of a key.
        shapes: of context, sigma and lengths.
        patch_len: P.
        config: horizon, in whole patches.
    """

    key: tuple[int, ...]
    shapes: Shapes
    patch_len: int
    config: DecodeConfig

    @classmethod
    def of(cls, exported: jax_export.Exported) -> Saved:
        """The decoder of the arguments and results that a program states."""
        (key, *arrays), _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
        context, sigma, *lengths = (tuple(array.shape) for array in arrays)
        _, fields = jax.tree.unflatten(exported.out_tree, exported.out_avals)
        patches, patch_len = fields["proposal"].shape[-3:-1]
        shapes = Shapes(context, sigma, bool(lengths))
        return cls(tuple(key.shape), shapes, patch_len, DecodeConfig(patches * patch_len, 0))

    def check(self, inputs: Inputs) -> None:
        """Raises InputError for inputs that `Decoder` refuses, as far as a file tells them."""
        inputs = inputs._replace(sigma=plain(inputs.sigma))
        check_inputs(inputs, self.patch_len, self.config, speculative=False, unit=1)
        self.shapes.check(inputs)

    def key_data(self, key: jax.Array) -> jax.Array:
        """The raw data of a checked key; InputError for a key of another kind."""
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        data = jax.random.key_data(key) if typed else key
        if data.shape != self.key:
            raise InputError(
                f"this decoder takes keys whose raw data has the shape {self.key}, got a key "
                f"{key.dtype} with {data.shape}; make it with the jax_default_prng_impl that the "
                "decoder was saved with."
            )
        return data


def load_decoder(path: str | Path) -> Callable[..., Decoded]:
    """Loads a decoder from a file of `Decoder.save`: `(key, context, sigma) -> (forecast, info)`.

    A padded decoder also takes `lengths`, last. Inputs are refused as by `Decoder`, but for two of
    which the file does not tell: a sigma of 0 where a draft proposes, and lengths that are no
    whole patches. With these `info.valid_input` is False.

    Raises:
        InputError: no such file, or not a saved decoder; and by what it returns, inputs of another
            shape, see also `decode`.
    """
    try:
        exported = jax_export.deserialize(bytearray(Path(path).read_bytes()))
        saved = Saved.of(exported)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except Exception as error:
        raise InputError(f"{path} is no saved decoder: {error}") from error
    program = jax.jit(exported.call)

    def run(key: jax.Array, context: Any, sigma: Any, lengths: Any | None = None) -> Decoded:
        inputs = Inputs(key, context, sigma, None, lengths)
        saved.check(inputs)
        inputs = inputs._replace(key=saved.key_data(key)).as_arrays()
        forecast, fields = program(*(x for x in inputs if x is not None))
        trace = fields.pop("trace")
        return forecast, DecodeInfo(**fields, trace=trace and Trace(**trace))

    return run
