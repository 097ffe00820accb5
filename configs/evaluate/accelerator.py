"""Everything that is measured on an accelerator, in one command that can be stopped and resumed.

`python evaluate.py accelerator` begins nothing after 7 minutes, and aims at 8 minutes in all.
Programs are compiled in parallel processes and timed one by one, and the rows of each job are
written as they come to `results/accelerator/rows.jsonl`. The same command goes on where it was
stopped, with the same config, on the same kind of device, at the same commit.
"""

from stride_jax.evaluation.config import AcceleratorConfig


def get_config() -> AcceleratorConfig:
    """Both decoders by size, batch, draft, dtype and rule; training, parity and exactness."""
    return AcceleratorConfig()
