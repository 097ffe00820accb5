"""Markdown tables of result files: a caption and the columns of each kind of file.

docs/reading_tables.md defines the columns.
"""

from __future__ import annotations

from stride_jax.evaluation.results import Content
from stride_jax.evaluation.tables.accelerator import accelerator_table
from stride_jax.evaluation.tables.drafts import drafts_table
from stride_jax.evaluation.tables.evaluations import (
    brief_table,
    evaluation_table,
    quick_table,
    speed_table,
)
from stride_jax.evaluation.tables.grids import latency_table, sweep_table, tune_table
from stride_jax.evaluation.tables.programs import launches_table, tpu_table
from stride_jax.evaluation.tables.proofs import (
    exactness_table,
    fidelity_table,
    plain_table,
)
from stride_jax.evaluation.tables.zero_shot import (
    ablation_table,
    aggregations_table,
    demanded_table,
    zero_shot_paths_table,
    zero_shot_table,
)


def make_table(content: Content) -> str:
    """The caption and the tables of any result file, as Markdown."""
    tables = {
        "brief": brief_table,
        "quick": quick_table,
        "evaluation": evaluation_table,
        "speed": speed_table,
        "sweep": sweep_table,
        "tune": tune_table,
        "latency": latency_table,
        "accelerator": accelerator_table,
        "exactness": exactness_table,
        "fidelity": fidelity_table,
        "zero_shot": zero_shot_table,
        "zero_shot_paths": zero_shot_paths_table,
        "ablation": ablation_table,
        "aggregations": aggregations_table,
        "demanded": demanded_table,
        "launches": launches_table,
        "drafts": drafts_table,
        "tpu_programs": tpu_table,
    }
    return "\n\n".join(tables.get(content.get("table", ""), plain_table)(content)) + "\n"
