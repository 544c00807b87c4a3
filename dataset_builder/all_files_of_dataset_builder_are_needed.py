"""Placeholder module. Its name is an error message: `load_dataset` names the first missing file that a script imports.

`shuffled_rocstories.py` imports this module first, so that users who copied only the script learn what is missing.
"""

SCRIPT = "shuffled_rocstories"
