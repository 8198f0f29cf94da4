"""tljax: a laboratory for transfer learning in language models.

The way through the house: data -> model -> objective -> step -> loop -> evaluate ->
report; nothing goes back (tests/test_layers.py reads the imports). This file imports
nothing of ours, so that rooms without JAX stay without it.
"""

import time

STARTED = time.monotonic()  # as good as the process's start: the first import is this
__version__ = "0.1.0"
