"""Fracast-0: a convolutional forecaster of 85 thousand parameters (PyPI package `fracast`)."""

from stride_jax.models.family import Family
from stride_jax.models.fracast.params import read, table_of
from stride_jax.models.fracast.process import make_process

FAMILY = Family(
    name="fracast",
    title="Fracast-0",
    source="inside the wheel of the PyPI package fracast, version 0.1.0",
    licence="Apache-2.0",
    table=table_of,
    read=read,
    make_process=make_process,
)

__all__ = ["FAMILY"]
