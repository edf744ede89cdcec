"""Settings of the documentation: ``make docs`` writes it to build/docs."""

import skimba

project = "skimba"
author = "the authors of skimba"
project_copyright = "2026, the authors of skimba, Apache-2.0"
version = release = skimba.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["verdict.md"]  # part of results.md
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks keep their outputs, which tests/test_tour.py makes anew and compares
nb_output_stderr = "remove"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of dataclasses would be described twice

html_theme = "furo"
html_title = "skimba"
