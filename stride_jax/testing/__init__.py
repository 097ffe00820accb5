"""Checks for people who write a rule or a process of their own; closed forms; sample distances."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"process_checks": ["check_process"], "rule_checks": ["check_exact"]},
)
