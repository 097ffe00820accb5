"""Toto 1.0 (151 M), Datadog's multivariate decoder: patches of 64 steps, a mixture per step."""

from stride_jax.models.family import Family
from stride_jax.models.toto.params import TITLE, read, table_of
from stride_jax.models.toto.process import toto_process

__all__ = ["FAMILY"]

FAMILY = Family(
    name="toto",
    title=TITLE,
    source="https://huggingface.co/Datadog/Toto-Open-Base-1.0",
    licence="Apache-2.0",
    table=table_of,
    read=read,
    make_process=toto_process,
)
