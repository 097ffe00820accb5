"""Decodes of arrays on a device in a process where reading one of them back raises.

`python transfers.py`, with two CPU devices: numpy reads an array of one CPU device through its
memory, past every method, but an array of two only through the methods that are replaced here.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.array import ArrayImpl
from toys import BATCH, DRAFT, SIGMA, TARGET, fading

from stride_jax.decoding.draft_length import Gain
from stride_jax.decoding.rules import Maximal, Mean
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.forecasting.decoder import build_decoder

NUMBERS = [f"__{name}__" for name in ("array", "float", "bool", "int", "index", "complex")]
METHODS = [*NUMBERS, "item", "tolist", "_value"]
CONFIG = DecodeConfig(6, 2)


class ReadBackError(Exception):
    """An array of a device was read."""


def refuse(*_: Any, **__: Any) -> None:
    raise ReadBackError


@contextmanager
def no_reads() -> Iterator[None]:
    """Every conversion of an array of a device to numpy or to a Python number raises."""
    methods = {name: getattr(ArrayImpl, name) for name in METHODS}
    for name in METHODS:
        setattr(ArrayImpl, name, property(refuse) if name == "_value" else refuse)
    try:
        yield
    finally:
        for name, method in methods.items():
            setattr(ArrayImpl, name, method)


def check_the_guard(value: jax.Array) -> None:
    """A guard that lets something pass would let every decode pass."""
    scalar = value.ravel()[0]
    reads: list[Callable[[], Any]] = [
        lambda: np.asarray(value),
        lambda: np.isfinite(value),
        lambda: (scalar == 0) or None,
        lambda: float(scalar),
        lambda: int(scalar),
        lambda: value.tolist(),
        lambda: scalar.item(),
        lambda: jax.device_get(value),
    ]
    for number, read in enumerate(reads):
        try:
            read()
        except ReadBackError:
            continue
        raise SystemExit(f"the guard let read {number} pass")


def main() -> None:
    """Decodes twice, the second time under the guard, and prints how many decodes that were."""
    mesh = jax.sharding.Mesh(jax.devices(), "devices")
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def place(tree: Any) -> Any:
        return jax.device_put(tree, everywhere)

    key, context = place((jax.random.key(0), jnp.asarray(BATCH[:2])))
    sigma, index, lengths = place((jnp.float32(SIGMA), jnp.arange(2), jnp.array([6, 12])))
    options = {"sigma": sigma, "config": CONFIG, "series_index": index}
    adaptive = place({"rule": Mean(tolerance=0.5), "draft_length": Gain(0.1, 0.9)})
    pair = {"target": place(fading()), "draft": place(fading(0.1)), "lengths": lengths}
    decodes = [{**pair, **adaptive}, {"target": place(TARGET)}]
    decodes.append({"target": None, "draft": place(DRAFT)})
    decoder = build_decoder(TARGET, CONFIG, Maximal(), context_shape=context.shape)
    checked = dataclasses.replace(decoder, _program=lambda *_: None)  # it runs on one device
    calls: list[Callable[[], Any]] = [
        *(lambda given=given: decode(key, context, **options, **given) for given in decodes),
        lambda: checked(key, context, sigma),
    ]
    for call in calls:
        call()
    with no_reads():
        check_the_guard(context)
        for call in calls:
            call()
    print(len(calls))


if __name__ == "__main__":
    main()
