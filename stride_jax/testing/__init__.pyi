from stride_jax.testing.draft_checks import check_draft as check_draft
from stride_jax.testing.process_checks import check_process as check_process
from stride_jax.testing.rule_checks import check_exact as check_exact

__all__ = ["check_draft", "check_exact", "check_process"]
