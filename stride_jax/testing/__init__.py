"""Checks for a rule, a process or a draft of your own; closed forms; sample distances."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "draft_checks": ["check_draft"],
        "process_checks": ["check_process"],
        "rule_checks": ["check_exact"],
    },
)
