"""Everything that is measured on an accelerator, in one command that can be stopped and resumed.

`python evaluate.py accelerator` (within 8 minutes on an H100 with 16 cores): programs are compiled
in parallel processes and timed one by one, and each row is written as it comes to
`results/accelerator/rows.jsonl`. The same command goes on where it was stopped.
"""

from stride_jax.evaluation.config import AcceleratorConfig


def get_config() -> AcceleratorConfig:
    """Both decoders by size, batch, draft, dtype and rule; training, parity and exactness."""
    return AcceleratorConfig()
