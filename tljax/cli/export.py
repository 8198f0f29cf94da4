"""tljax export: a run's model as the rest of the world loads it.

run folder -> config.json, model.safetensors, tokenizer, README.md   (or one .gguf, or a
PEFT adapter)
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tljax.cli.command import Flag, check_new_folder, read_only_flags
from tljax.data.folders import whole_folder
from tljax.pretrained.card import AdapterOf, model_card
from tljax.settings import InputError, suggestion

DESCRIPTION = """
Writes a folder that Transformers' from_pretrained takes, or with --format=gguf a file
for llama.cpp and its kin. A run with an adapter (lora, dora, ia3) is written merged, or
with --format=peft, as prompt and prefix can be too, as an adapter of the model that it
began from.

  tljax export --run=models/smollm2 --out=exported/smollm2 --format=gguf --stored=Q8_0
  tljax export --run=runs/lora --out=exported/lora
  tljax export --run=runs/lora --out=exported/adapter --format=peft

A classifier is written beside the model (classifier.safetensors), since Transformers'
heads are other ones; the folder's README.md has the ten lines that apply it.

Here models/smollm2 is what `tljax import` wrote and runs/lora a run that began from it
with config.transfer.method=lora. Only what some family of Transformers computes can be
written, else one line says why: a run of configs/pretrain.py can if it was trained with
--config.model.mlp=swiglu, not with the relu2 that stands there.
"""
FORMATS = ("safetensors", "gguf", "peft")


def run(argv: Sequence[str]) -> None:
    """Reads and writes."""
    from tljax.pretrained.gguf.writer import STORED

    flags = (
        Flag("run", "DIR", "a run folder, or what `tljax import` wrote", required=True),
        Flag("out", "DIR", "a folder that is not there yet", required=True),
        Flag("format", "NAME", f"{', '.join(FORMATS)}; safetensors unless said"),
        Flag("stored", "TYPE", f"with gguf: {', '.join(STORED)}; F16 unless said"),
    )
    given = read_only_flags(
        argv, flags, program="tljax export", description=DESCRIPTION
    )
    if given is None:
        return
    kind, stored = given.get("format", "safetensors"), given.get("stored", "F16")
    for name, value, allowed in (
        ("format", kind, FORMATS),
        ("stored", stored, STORED),
    ):
        if value not in allowed:
            raise InputError(
                f"--{name}={value} is not known{suggestion(value, allowed)}; allowed:"
                f" {', '.join(allowed)}"
            )
    if "stored" in given and kind != "gguf":
        raise InputError("--stored is about --format=gguf only")
    folder, out = pathlib.Path(given["run"]), pathlib.Path(given["out"])
    check_new_folder(out)
    if kind == "peft":
        _write_adapter(folder, out)
    else:
        _write_model(folder, out, stored if kind == "gguf" else None)
    print(f"{out}: written as {kind}")
    if (out / "classifier.json").exists():
        print(
            f"its classifier stands apart, in {out / 'classifier.safetensors'}:"
            " Transformers' own heads are other ones; README.md there shows how to"
            " apply it"
        )


def _write_model(folder: pathlib.Path, out: pathlib.Path, stored: str | None) -> None:
    from tljax.cli.models import open_model
    from tljax.pretrained.families import write_config
    from tljax.pretrained.folder import write_folder
    from tljax.pretrained.gguf.writer import write_gguf
    from tljax.pretrained.tree import write_tensors

    model = open_model(str(folder))
    config = _records(folder)[0]
    rows = model.params["embedding"]["tokens"].shape[0]
    family, described = write_config(model.settings, rows)
    params = dict(model.params)
    head = params.pop("head", None)
    if not model.settings.tied and "output" not in params:
        params["output"] = _output_of(config)
    tokenizer = model.tokenizer
    tokenizer_config: dict[str, Any] = {}
    if tokenizer is not None:
        tokenizer_config = dict(tokenizer.tokenizer_config)
        ends = model.end_ids
        described |= {
            "eos_token_id": ends if len(ends) > 1 else ends[0],
            "pad_token_id": tokenizer.pad_id,
        }
        if tokenizer.begin_id is not None:
            described["bos_token_id"] = tokenizer.begin_id
    tensors = write_tensors(params, family)
    if stored is not None:
        if head is not None:
            raise InputError(
                f"{folder} has a classifier, which GGUF cannot hold; export it as"
                " safetensors"
            )
        json_text = tokenizer.tokenizer_json if tokenizer else None
        with whole_folder(out) as fresh:
            path = fresh / f"{out.name}.{stored}.gguf"
            write_gguf(path, described, tensors, json_text, tokenizer_config, stored)
        return
    write_folder(
        out,
        config=described,
        tensors=tensors,
        tokenizer_json=tokenizer.tokenizer_json if tokenizer else None,
        tokenizer_config=tokenizer_config,
        model_card=_card(folder, out.name),
        classifier=_classifier(folder, config, head),
    )


def _classifier(folder: pathlib.Path, config: Mapping[str, Any], head):
    """logits = pooled states kernel + bias, classes in the order of the columns."""
    from tljax.cli.models import classes_of
    from tljax.pretrained.folder import Classifier
    from tljax.settings import HeadSettings, from_config

    if not head:
        return None
    settings = from_config(HeadSettings, config.get("head", {}), f"{folder}: head")
    return Classifier(
        {name: np.asarray(value, np.float32) for name, value in head.items()},
        {"classes": classes_of(folder, head), "pooling": settings.pooling},
    )


def _write_adapter(folder: pathlib.Path, out: pathlib.Path) -> None:
    from tljax.cli.models import load_own_params, source_settings, transfer_of
    from tljax.pretrained.families import write_config
    from tljax.pretrained.folder import write_adapter_folder
    from tljax.pretrained.packaged import hub_name
    from tljax.pretrained.peft import peft_adapter
    from tljax.pretrained.peft_virtual import VIRTUAL

    config, _, _ = _records(folder)
    transfer, model = transfer_of(str(folder)), source_settings(str(folder))
    family, _ = write_config(model, 1)
    base = (config.get("init") or {}).get("source") or ""
    moving = load_own_params(str(folder))
    named = hub_name(base)
    described, tensors = peft_adapter(moving, family, transfer, model=model, base=named)
    writes = described["task_type"] == "CAUSAL_LM"
    loads = "AutoModelForCausalLM" if writes else "AutoModel"
    write_adapter_folder(
        out,
        config=described,
        tensors=tensors,
        model_card=_card(
            folder, out.name, AdapterOf(loads, named, transfer.method in VIRTUAL)
        ),
        classifier=_classifier(folder, config, moving.get("head")),
    )


def _records(folder: pathlib.Path) -> tuple[dict, dict, dict]:
    """config.json, manifest.json and the final record ({} of an import)."""
    from tljax.cli import parts
    from tljax.train.record import final_record, read_record

    config = read_record(parts.run_file(folder, "config.json"), "model")
    manifest = read_record(parts.run_file(folder, "manifest.json"))
    there = (folder / "metrics.jsonl").exists()
    return config, manifest, final_record(folder) if there else {}


def _card(folder: pathlib.Path, name: str, adapter_of: AdapterOf | None = None) -> str:
    config, manifest, results = _records(folder)
    return model_card(
        name=name,
        config=config,
        manifest=manifest,
        results=results,
        adapter_of=adapter_of,
    )


def _output_of(config: Mapping[str, Any]) -> np.ndarray:
    """The output matrix, which a classifier does not keep, of what it began from.

    That may be a classifier too, and so on: the first that has one gives it.
    """
    from tljax.cli import parts
    from tljax.cli.models import load_params_of
    from tljax.pretrained.sources import is_uri
    from tljax.train.record import read_record

    while source := (config.get("init") or {}).get("source"):
        params = load_params_of(source)
        if "output" in params:
            return params["output"]
        if is_uri(source):
            break
        config = read_record(parts.run_file(source, "config.json"))
    raise InputError(
        "nothing that this classifier began from has the output matrix that its family"
        " needs; set config.model.tied=True, or begin from a language model"
    )
