"""A checkpoint folder as Transformers writes it: opened without reading, or written.

config.json, model.safetensors or shards, tokenizer.json -> Checkpoint, and back
Pickles (.bin, .pt) are programs: never loaded. What is written is whole or not there.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tljax.data.folders import whole_folder
from tljax.data.foreign_tokenizer import CONFIG_FILE, plain_config
from tljax.pretrained.checkpoint import Checkpoint, union_of_ends
from tljax.pretrained.families import check_vocab_size
from tljax.pretrained.json_files import (
    check_finite,
    json_text,
    read_json,
    read_object,
    read_text,
)
from tljax.pretrained.safetensors_files import (
    WEIGHTS,
    is_plain,
    open_tensors,
    write_tensors,
)
from tljax.settings import InputError, suggestion

ADAPTER = "adapter_config.json"
GENERATION = "generation_config.json"
TOKENIZER_CLASS = "PreTrainedTokenizerFast"  # takes tokenizer.json as it is
FETCHED = ("*.safetensors", "*.json", "*.jinja", "tokenizer*", "*.model", "*.txt")
# What sentence-transformers call ours.
POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}


def open_folder(folder: pathlib.Path) -> Checkpoint:
    """Opens a checkpoint folder; no tensor is read.

    Raises:
      InputError: no folder, an adapter's, no config.json with a model_type, no
        safetensors, or one that is not whole; the line names the file and the tensor.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        near = os.listdir(folder.parent) if folder.parent.is_dir() else []
        near = [name for name in near if name != folder.name]
        raise InputError(
            f"{folder} is not a folder{suggestion(folder.name, near)}; give one with"
            f" config.json and {WEIGHTS}"
        )
    _refuse_adapter(folder)
    config = _read_config(folder)
    tokenizer = folder / "tokenizer.json"
    return Checkpoint(
        where=str(folder),
        config=config,
        tensors=open_tensors(folder),
        tokenizer_json=read_text(tokenizer) if tokenizer.is_file() else None,
        tokenizer_config=_read_tokenizer_config(folder),
        sentence=_read_sentence(folder),
    )


def fetch_hub(name: str) -> pathlib.Path:
    """Fetches a model from the Hugging Face hub, into its cache; needs the internet.

    Args:
      name: 'ORG/NAME'.

    Returns:
      The folder; weights other than safetensors are not fetched.

    Raises:
      InputError: no such model, none that may be seen, no internet or no room.
    """
    import huggingface_hub

    try:
        # a subfolder's safetensors are the same weights again, for other programs
        fetched = huggingface_hub.snapshot_download(
            name, allow_patterns=FETCHED, ignore_patterns=["*/*.safetensors"]
        )
    except Exception as error:  # its network libraries have kinds of their own
        said = " ".join(str(error).split())
        if "ConnectError" in said or "ConnectionError" in said:
            said = "there is no way to it from here"
        raise InputError(
            f"hf:{name} is not a folder here and could not be fetched from"
            f" the hub ({said[:200]}); give hf:DIR, a folder that was fetched before"
        ) from error
    return pathlib.Path(fetched)


class Classifier(NamedTuple):
    """A head's tensors and, for classifier.json, its classes and pooling."""

    tensors: Mapping[str, np.ndarray]
    config: Mapping[str, Any]


def write_folder(
    folder: pathlib.Path,
    *,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    tokenizer_json: str | None,
    tokenizer_config: Mapping[str, Any],
    model_card: str,
    classifier: Classifier | None = None,
) -> None:
    """Writes a folder that Transformers and `open_folder` read, whole or not at all.

    Args:
      folder: new or empty.
      config: for config.json, with its 'model_type'.
      tensors: float32, float16 or bfloat16, named and laid out as in Transformers;
        each is asked for twice and written before the next, so that they may be made
        on demand.
      tokenizer_json: for tokenizer.json; None = the model has no tokenizer.
      tokenizer_config: for tokenizer_config.json, with the chat template; where it
        names no class, Transformers is told to take tokenizer.json as it is.
      model_card: for README.md.
      classifier: of a model that was fine-tuned to classify.

    Raises:
      InputError: the folder is in use, or cannot be written.
    """
    texts = {"config.json": json_text(config)}
    if tokenizer_json is not None:
        # else Transformers takes the class of the model_type, which may build another
        plain = {"tokenizer_class": TOKENIZER_CLASS}
        texts |= {"tokenizer.json": tokenizer_json}
        texts |= {CONFIG_FILE: json_text(plain | dict(tokenizer_config))}
    _write_model(folder, texts, {WEIGHTS: tensors}, model_card, classifier)


def write_adapter_folder(
    folder: pathlib.Path,
    *,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    model_card: str,
    classifier: Classifier | None = None,
) -> None:
    """Writes an adapter as PEFT reads it, whole or not at all.

    Args:
      folder: new or empty.
      config: for adapter_config.json.
      tensors: for adapter_model.safetensors.
      model_card: for README.md.
      classifier: beside it; PEFT does not read it, the card says how it is applied.

    Raises:
      InputError: the folder is in use, or cannot be written.
    """
    texts = {ADAPTER: json_text(config)}
    files = {"adapter_model.safetensors": tensors}
    _write_model(folder, texts, files, model_card, classifier)


def _write_model(folder, texts, files, model_card, classifier) -> None:
    """Adds what every kind of model has: its card, and its classifier if any."""
    texts = texts | {"README.md": model_card}
    if classifier is not None:
        files = files | {"classifier.safetensors": classifier.tensors}
        texts |= {"classifier.json": json_text(classifier.config)}
    _write_whole(folder, texts, files)


def _write_whole(
    folder: pathlib.Path,
    texts: Mapping[str, str],
    files: Mapping[str, Mapping[str, np.ndarray]],
) -> None:
    """Writes texts and safetensors files, whole or not at all."""
    folder = pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there and not empty; give a new folder")
    with whole_folder(folder) as whole:
        for name, text in texts.items():
            (whole / name).write_text(text, encoding="utf-8", newline="\n")
        for name, tensors in files.items():
            write_tensors(whole / name, tensors)


def _refuse_adapter(folder: pathlib.Path) -> None:
    """PEFT's folder has what was added to a model, but not the model."""
    path = folder / ADAPTER
    if not path.is_file() or (folder / "config.json").is_file():
        return
    base = read_object(path).get("base_model_name_or_path") or "a model not named"
    raise InputError(
        f"{folder} holds an adapter for PEFT, of {base}, not a model; give the run that"
        " it was exported from, or a folder that PEFT's merge_and_unload was saved to"
    )


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
    """config.json; what ends a text also from generation_config.json."""
    path = folder / "config.json"
    config = read_object(path)
    if not isinstance(config.get("model_type"), str):
        raise InputError(
            f"{path} has no 'model_type', e.g. 'llama'; give a folder as Transformers"
            " writes it"
        )
    check_finite(config, path)
    if "vocab_size" in config:
        check_vocab_size(config, str(folder))
    generation = folder / GENERATION
    told = read_object(generation) if generation.is_file() else {}
    key = "eos_token_id"
    ends = union_of_ends(config.get(key), told.get(key), where=str(folder))
    return config if ends is None else config | {key: ends}


def _read_tokenizer_config(folder: pathlib.Path) -> dict[str, Any]:
    """tokenizer_config.json; tokens it lacks from special_tokens_map.json."""
    path = folder / CONFIG_FILE
    config = read_object(path) if path.is_file() else {}
    path = folder / "special_tokens_map.json"
    tokens = read_object(path) if path.is_file() else {}
    config |= {key: tokens[key] for key in tokens if config.get(key) is None}
    path = folder / "chat_template.jinja"
    if path.is_file():
        config["chat_template"] = read_text(path)
    return plain_config(config, str(folder))


def _read_sentence(folder: pathlib.Path) -> dict[str, Any]:
    """What sentence-transformers' files say, if it is pooling and a norm, no more."""
    path = folder / "modules.json"
    modules = read_json(path) if path.is_file() else None
    if not isinstance(modules, list) or not all(isinstance(m, dict) for m in modules):
        return {}
    place_of = {str(m.get("type")).rpartition(".")[2]: m.get("path") for m in modules}
    if place_of.keys() - {"Transformer", "Pooling", "Normalize"}:
        return {}
    place = place_of.get("Pooling")
    if not is_plain(place) or not (folder / place / "config.json").is_file():
        return {}
    modes = read_object(folder / place / "config.json")
    chosen = [key for key in modes if "pooling_mode_" in key and modes[key] is True]
    said: dict[str, Any] = {"normalize": "Normalize" in place_of}
    if len(chosen) == 1 and chosen[0] in POOLINGS:
        said["pooling"] = POOLINGS[chosen[0]]
    path = folder / "sentence_bert_config.json"
    length = read_object(path).get("max_seq_length") if path.is_file() else None
    return said | ({"length": length} if type(length) is int else {})
