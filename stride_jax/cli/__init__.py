"""The command line: `stride-jax`, and what the three programs share."""
