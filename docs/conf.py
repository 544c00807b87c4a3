"""Configuration of the documentation: `sphinx-build -W docs docs/_build`."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent)]

project = "sentence-ordering"
author = "the sentence-ordering contributors"
copyright = author
version = release = installed_version("sentence-ordering")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated_reference"]
exclude_patterns = ["_build", "_extensions"]
myst_heading_anchors = 3

default_role = "code"  # docstrings have single backticks around code
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = "sentence-ordering"
html_static_path = ["_static"]
html_css_files = ["layout.css"]
