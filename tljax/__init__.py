"""tljax: a laboratory for transfer learning in language models.

The way through the house: data -> model -> objective -> step -> loop -> evaluate ->
report; nothing goes back (tests/test_layers.py reads the imports). This file imports
nothing, so that rooms without JAX stay without it.
"""

__version__ = "0.1.0"
