"""Decoding of patch forecasters: processes, drafts, acceptance rules, the loop."""
