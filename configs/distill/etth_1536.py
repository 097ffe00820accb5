"""The 0.25x draft of a target at context 1536, distilled by mean matching.

`python distill.py etth_1536` (12 minutes on 2 CPU cores), after `train.py etth_1536` and
`train.py etth_1536_pretrain`; for ETTh2 add `--data.source ETTh2 --target runs/ETTh2_1536_target
--init_from runs/ETTh2_1536_pretrain --run.out runs/ETTh2_1536_draft`.
"""

import dataclasses
from pathlib import Path

from stride_jax.cli.flags import load_config
from stride_jax.training.config import DistillConfig


def get_config() -> DistillConfig:
    """No dropout, a high rate, half of the windows made up: see docs/results/better_drafts.md."""
    base = load_config("etth1_672", Path(__file__).parent, DistillConfig)
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, context_len=1536),
        target="runs/ETTh1_1536_target",
        init_from="runs/ETTh1_1536_pretrain",
        dropout=0.0,
        augment=0.5,
        optim=dataclasses.replace(base.optim, learning_rate=2e-3, epochs=3),
        run=dataclasses.replace(base.run, out="runs/ETTh1_1536_draft"),
    )
