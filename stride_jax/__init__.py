"""Functional JAX/Flax reimplementation of STRIDE (arXiv 2511.18191)."""
