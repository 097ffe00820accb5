"""Measuring decoders: scores, times, tables and figures."""
