"""Poutyne: `framework` trains by a recipe.

`adapters`, `callbacks` and `experiment` also work with a `Model` or `Experiment` of your own.
"""
