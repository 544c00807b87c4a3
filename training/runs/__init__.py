"""A training run from recipe to finished folder, with its description and card, and the comparison of many runs."""
