"""A decoder with its parameters in one file, which runs with jax alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import export as jax_export

from stride_jax.checkpoints.build import Pair
from stride_jax.decoding.base import DecodeConfig, Rule
from stride_jax.decoding.speculative import decode
from stride_jax.errors import InputError

Platform = Literal["cpu", "cuda", "rocm", "tpu"]


def export_decoder(
    path: str | Path,
    pair: Pair,
    config: DecodeConfig,
    *,
    context_shape: tuple[int, ...],
    rule: Rule | None = None,
    platforms: Sequence[Platform] = ("cpu",),
) -> None:
    """Writes the decoder of a pair to a file; without a draft, that of the target alone.

    The file is a serialised `jax.export.Exported`: StableHLO of the whole decode, the parameters in
    it, lowered for every platform named (none of them has to be there). It takes
    `(key uint32 [2], context float32, sigma float32)`, where key is `jax.random.key_data(key)`.

    Args:
        path: to write; must not exist.
        pair: target and draft.
        config: horizon, K, paths.
        context_shape: `[L, C]` or `[B, L, C]`, fixed in the file.
        rule: acceptance rule with its settings, fixed in the file; None for `Maximal()`.
        platforms: it is to run on.

    Raises:
        InputError: the path exists; see `decode`.
    """
    path = Path(path)
    if path.exists():
        raise InputError(f"{path} exists; move it away or give another name.")

    def run(key: jax.Array, context: jax.Array, sigma: jax.Array) -> jax.Array:
        forecast, _ = decode(
            key,
            context,
            target=pair.target,
            draft=pair.draft,
            sigma=sigma,
            config=config,
            rule=rule,
        )
        return forecast

    shapes = (
        jax.ShapeDtypeStruct(jax.random.key_data(jax.random.key(0)).shape, jnp.uint32),
        jax.ShapeDtypeStruct(context_shape, jnp.float32),
        jax.ShapeDtypeStruct((), jnp.float32),
    )
    exported = jax_export.export(jax.jit(run), platforms=tuple(platforms))(*shapes)
    path.write_bytes(exported.serialize())


def load_decoder(path: str | Path) -> Callable[[jax.Array, Any, float], jax.Array]:
    """Loads a decoder from a file of `export_decoder`: `(key, context, sigma) -> forecast`.

    Without this package: `jax.export.deserialize(bytearray(open(path, "rb").read())).call(...)`.

    Raises:
        InputError: no such file, or not an exported decoder.
    """
    try:
        exported = jax_export.deserialize(bytearray(Path(path).read_bytes()))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except Exception as error:
        raise InputError(f"{path} is no exported decoder: {error}") from error

    def run(key: jax.Array, context: Any, sigma: float) -> jax.Array:
        data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
        return exported.call(data, jnp.asarray(context, jnp.float32), jnp.float32(sigma))

    return run
