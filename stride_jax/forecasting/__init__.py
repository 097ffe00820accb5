"""Forecasts of histories and frames, in the units of the series."""
