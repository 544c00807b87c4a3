"""A name for an error: `load_dataset` names the first file that a script imports and that is not beside it.

`shuffled_rocstories.py` imports this module first, so somebody who copied the script alone reads that all files of
`dataset_builder` are needed.
"""

SCRIPT = "shuffled_rocstories"
