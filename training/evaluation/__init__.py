"""Scoring stories whose order is known: predictions, metrics, calibration and error analysis."""
