"""PatchFM 3.2 (345 M), a univariate decoder: patches of 32 steps, nine quantiles per step."""

from stride_jax.models.family import Family
from stride_jax.models.patchfm.params import TITLE, read, table_of
from stride_jax.models.patchfm.process import patchfm_process

__all__ = ["FAMILY"]

FAMILY = Family(
    name="patchfm",
    title=TITLE,
    source="https://huggingface.co/vilhess/PatchFM",
    licence="MIT for the code; see its source for the weights",
    table=table_of,
    read=read,
    make_process=patchfm_process,
)
