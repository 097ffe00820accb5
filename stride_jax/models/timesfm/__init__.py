"""TimesFM 2.5 (200 M), google's univariate decoder: patches of 128 steps, ten outputs per step."""

from stride_jax.models.family import Family
from stride_jax.models.timesfm.draft import quantile_head_draft
from stride_jax.models.timesfm.params import TITLE, read, table_of
from stride_jax.models.timesfm.process import timesfm_process

__all__ = ["FAMILY"]

FAMILY = Family(
    name="timesfm",
    title=TITLE,
    source="https://huggingface.co/google/timesfm-2.5-200m-pytorch",
    licence="Apache-2.0",
    table=table_of,
    read=read,
    make_process=timesfm_process,
    drafts={"quantile-head": quantile_head_draft},
)
