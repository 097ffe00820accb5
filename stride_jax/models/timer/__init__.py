"""Timer (84 M), thuml's univariate decoder: one patch of 96 steps in, the next one out."""

from stride_jax.models.family import Family
from stride_jax.models.timer.params import TITLE, read, table_of
from stride_jax.models.timer.process import timer_process

__all__ = ["FAMILY"]

FAMILY = Family(
    name="timer",
    title=TITLE,
    source="https://huggingface.co/thuml/timer-base-84m",
    licence="Apache-2.0",
    table=table_of,
    read=read,
    make_process=timer_process,
)
