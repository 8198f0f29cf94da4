"""The model card: data, licence, use, limits and measured results, in Markdown.

Everything in it comes from the run's records; what they do not say is unknown.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class AdapterOf(NamedTuple):
    """What a folder that holds an adapter alone belongs to.

    Attributes:
      loads: the class of Transformers that loads the base.
      base: its name.
      virtual: whether PEFT puts something before each text, which its own model does
        and the base inside of it does not.
    """

    loads: str
    base: str
    virtual: bool = False


def model_card(
    *,
    name: str,
    config: Mapping[str, Any],
    manifest: Mapping[str, Any],
    results: Mapping[str, Any],
    adapter_of: AdapterOf | None = None,
) -> str:
    """Returns the README.md of an exported model.

    Args:
      name: of the export's folder.
      config: the run's config.json.
      manifest: the run's manifest.json.
      results: the run's final record; {} of a model that was only imported.
      adapter_of: of a folder that holds an adapter alone.
    """
    kind = config.get("kind")
    parts = [
        f"# {name}",
        _what(kind, config),
        *([_classifier_code(adapter_of)] if kind == "finetune" else []),
        f"{manifest.get('parameters', 0):,} parameters{_moved(manifest)}. Made with"
        f" tljax {manifest.get('versions', {}).get('tljax', '')};"
        f" {_hash(manifest, config, results)}.",
        "## Data",
        _data(manifest, config),
        "## Intended use",
        "Research on transfer learning: to repeat the run's numbers, to compare with"
        " them, to go on from these weights on data like those above.",
        "## Limits",
        _limits(kind),
        "## Measured results",
        _results(results),
    ]
    return "\n\n".join(parts) + "\n"


def _what(kind: str | None, config: Mapping[str, Any]) -> str:
    source = (config.get("init") or {}).get("source") or config.get("source")
    begun = f" It began from `{source}`." if source else ""
    what = {
        "pretrain": "A language model, trained by next-word prediction.",
        "finetune": "A model fine-tuned to classify texts; the classifier stands in"
        " `classifier.safetensors` (states pooled as classifier.json says, then a"
        " linear map).",
        "import": "Other people's model, read and written back; its own card and"
        " licence hold.",
    }.get(kind or "", "A model.")
    return what + begun


_CLASSIFIER = """```python
import json, torch
from safetensors.torch import load_file
from transformers import {kind}, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("{base}")
model = {kind}.from_pretrained("{base}")
{adapter}model = model.eval()
head = load_file("classifier.safetensors")
told = json.load(open("classifier.json"))
batch = tokenizer(["a text"], return_tensors="pt")  # one text: no padding to mask
with torch.no_grad():
    states = {states}
pooled = {{"mean": states.mean(0), "last": states[-1], "cls": states[0],
          "max": states.max(0).values}}[told["pooling"]]
p = (pooled @ head["kernel"] + head["bias"]).softmax(0)
print(dict(zip(told["classes"], p.tolist())))
```"""
_STATES = "model(**batch).last_hidden_state[0]"
_ADAPTER = """from peft import PeftModel
model = PeftModel.from_pretrained(model, "."){inside}
"""
_VIRTUAL_STATES = "model(**batch, output_hidden_states=True).hidden_states[-1][0]"


def _classifier_code(adapter_of: AdapterOf | None) -> str:
    """How the classifier is applied to the states of the model beside it."""
    kind, base, virtual = adapter_of or AdapterOf("AutoModel", ".")
    inside = "" if virtual else ".get_base_model().base_model"
    code = _CLASSIFIER.format(
        kind=kind, base=base,
        adapter=_ADAPTER.format(inside=inside) if adapter_of else "",
        states=_VIRTUAL_STATES if virtual else _STATES,
    )  # fmt: skip
    told = "In this folder, with PyTorch and Transformers"
    return f"{told}:\n\n{code}"


def _data(manifest: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    data = manifest.get("data") or {}
    lines = [
        f"- `{uri}`: licence: {facts.get('licence') or 'not stated'}"
        for uri, facts in data.items()
    ]
    if not lines:
        source = config.get("source")
        lines = [f"- those of `{source}`; see its own card" if source else "- unknown"]
    return "\n".join(lines)


def _limits(kind: str | None) -> str:
    limits = "It repeats what its text says, false or unfair as that may be; nothing"
    limits += " was done to make it safe. "
    if kind == "finetune":
        limits += "Labels of other texts than those above may be predicted far worse. "
    return limits + "The numbers below hold for the named data only."


def _results(results: Mapping[str, Any]) -> str:
    rows = []

    def walk(values: Mapping[str, Any], name: str) -> None:
        if "value" in values:
            error = f" ± {values['se']:.4f}" if values.get("se") else ""
            count = f"{values['n']:,}" if "n" in values else ""
            rows.append(f"| {name} | {values['value']:.4f}{error} | {count} |")
            return
        for key, inside in values.items():
            if isinstance(inside, Mapping):
                walk(inside, f"{name} {key.replace('_', ' ')}".strip())

    walk(results, "")
    if not rows:
        return "None by tljax."
    return "\n".join(["| what | value ± standard error | n |", "|---|---|---|", *rows])


def _moved(manifest: Mapping[str, Any]) -> str:
    whole = manifest.get("parameters", 0)
    moving = manifest.get("parameters_moving", whole)
    return "" if moving == whole else f", of which the run moved {moving:,}"


def _hash(
    manifest: Mapping[str, Any], config: Mapping[str, Any], results: Mapping[str, Any]
) -> str:
    """The record's hash, and what it is of: no file that stands beside the card."""
    sha256 = results.get("params_sha256") or manifest.get("params_sha256") or "?"
    whole = not config.get("transfer")
    what = "params/" if whole else "params/ (what it moved, without the frozen weights)"
    return f"the SHA-256 of the run's {what}, leaf by leaf, is `{sha256}`"
