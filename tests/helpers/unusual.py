"""A model config that no test of storage can mistake for the default one."""

from stride_jax.models.config import TimerXLConfig

UNUSUAL = TimerXLConfig(
    patch_len=4,
    d_model=16,
    num_heads=2,
    d_ff=12,
    num_layers=2,
    activation="gelu",
    head="gaussian",
    instance_norm=None,
    covariate=True,
    covariate_mask="causal",
    variable_stride=5,
    max_patches=3,
    output_patches=2,
    dropout=0.3,
    dtype="bfloat16",
    remat=True,
    anchor="last",
    precision="high",
)
"""Every field differs from its default, so a lost one shows."""
