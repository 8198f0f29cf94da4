"""Flags that several verbs share; imports no JAX, so that they are refused at once."""

from tljax.cli.command import Flag
from tljax.pretrained.packaged import MODELS

_FORMS = ["a run folder", "hf:DIR", "hf:ORG/NAME", "gguf:FILE"]
_FORMS += [f"pkg:{name}" for name in MODELS]
MODEL = Flag("model", "URI", f"{', '.join(_FORMS[:-1])} or {_FORMS[-1]}", required=True)
DTYPE = Flag("dtype", "NAME", "of products: float32, bfloat16 or auto")
