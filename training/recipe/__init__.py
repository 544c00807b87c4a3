"""The recipe: every setting that decides the result of a training run, and reading recipes from files."""
