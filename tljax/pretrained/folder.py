"""A checkpoint folder as Transformers writes it: opened without reading, or written.

config.json + model.safetensors, or shards and an index that says what is where:
  {"weight_map": {"a.weight": "model-1.safetensors", "b.weight": "model-2.safetensors"}}
Pickles (.bin, .pt) are programs: never loaded. What is written is whole or not there.
"""

import functools
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from tljax.data.tokenizer import CONFIG_FILE, plain_tokenizer_config
from tljax.pretrained.checkpoint import Checkpoint, Tensor
from tljax.settings import InputError, suggestion

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
# What is read and written; other types can be told, not read.
STORED = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
}
FETCHED = ("*.safetensors", "*.json", "*.jinja", "tokenizer*", "*.model", "*.txt")
# What sentence-transformers call ours.
POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
LONGEST_HEADER = 100_000_000  # bytes; the library takes no more


def open_folder(folder: pathlib.Path) -> Checkpoint:
    """Opens a checkpoint folder; no tensor is read.

    Raises:
      InputError: no folder, no config.json with a model_type, no safetensors, or one
        that is not whole; the line names the file and the tensor.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        near = os.listdir(folder.parent) if folder.parent.is_dir() else []
        near = [name for name in near if name != folder.name]
        raise InputError(
            f"{folder} is not a folder{suggestion(folder.name, near)}; give one with"
            f" config.json and {WEIGHTS}"
        )
    config = _read_object(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise InputError(
            f"{folder / 'config.json'} has no 'model_type', e.g. 'llama'; give a folder"
            " as Transformers writes it"
        )
    tokenizer = folder / "tokenizer.json"
    return Checkpoint(
        where=str(folder),
        config=config,
        tensors=_open_tensors(folder),
        tokenizer_json=_read_text(tokenizer) if tokenizer.is_file() else None,
        tokenizer_config=_read_tokenizer_config(folder),
        sentence=_read_sentence(folder),
    )


def fetch_hub(name: str) -> pathlib.Path:
    """Fetches a model from the Hugging Face hub, into its cache; needs the internet.

    Args:
      name: 'ORG/NAME', or 'NAME' of the oldest.

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
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"hf:{name} is not a folder here and could not be fetched from"
            f" the hub ({said}); give hf:DIR, a folder that was fetched before"
        ) from error
    return pathlib.Path(fetched)


def write_folder(
    folder: pathlib.Path,
    *,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    tokenizer_json: str | None,
    tokenizer_config: Mapping[str, Any],
    model_card: str,
    classifier: Mapping[str, np.ndarray] | None = None,
    classifier_config: Mapping[str, Any] | None = None,
) -> None:
    """Writes a folder that Transformers and `open_folder` read, whole or not at all.

    Args:
      folder: new or empty.
      config: for config.json, with its 'model_type'.
      tensors: float32, float16 or bfloat16, named and laid out as in Transformers;
        each is asked for twice and written before the next, so that they may be made
        on demand.
      tokenizer_json: for tokenizer.json; None = the model has no tokenizer.
      tokenizer_config: for tokenizer_config.json, with the chat template.
      model_card: for README.md.
      classifier: for classifier.safetensors; None = the model has none.
      classifier_config: for classifier.json: classes, pooling.

    Raises:
      InputError: the folder is in use, or cannot be written.
    """
    texts = {"config.json": _json(config), "README.md": model_card}
    if tokenizer_json is not None:
        texts |= {"tokenizer.json": tokenizer_json}
        texts |= {CONFIG_FILE: _json(tokenizer_config)}
    files = {WEIGHTS: tensors}
    if classifier is not None:
        files |= {"classifier.safetensors": classifier}
        texts |= {"classifier.json": _json(classifier_config or {})}
    _write_whole(folder, texts, files)


def write_adapter_folder(
    folder: pathlib.Path,
    *,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    model_card: str,
) -> None:
    """Writes an adapter as PEFT reads it, whole or not at all.

    Args:
      folder: new or empty.
      config: for adapter_config.json.
      tensors: for adapter_model.safetensors.
      model_card: for README.md.

    Raises:
      InputError: the folder is in use, or cannot be written.
    """
    texts = {"adapter_config.json": _json(config), "README.md": model_card}
    _write_whole(folder, texts, {"adapter_model.safetensors": tensors})


def _write_whole(
    folder: pathlib.Path,
    texts: Mapping[str, str],
    files: Mapping[str, Mapping[str, np.ndarray]],
) -> None:
    """Writes texts and safetensors files beside the folder, then puts it there."""
    folder = pathlib.Path(folder)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} is there and not empty; give a new folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=folder.parent, prefix="unfinished-"
        ) as unfinished:
            whole = pathlib.Path(unfinished) / folder.name
            whole.mkdir()
            for name, text in texts.items():
                (whole / name).write_text(text, encoding="utf-8", newline="\n")
            for name, tensors in files.items():
                _write_tensors(whole / name, tensors)
            whole.rename(folder)
    except OSError as error:
        raise InputError(
            f"cannot write {folder}: {error.strerror or error}; make room or give"
            " another folder"
        ) from error


def _write_tensors(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """The safetensors format by hand: one tensor in memory, not a copy of them all.

    8 bytes N | N bytes of JSON {name: {dtype, shape, data_offsets}} | the tensors
    """
    told = {}
    for name, array in tensors.items():
        if array.dtype not in STORED:
            allowed = ", ".join(map(str, STORED))
            raise ValueError(f"tensor {name!r} is {array.dtype}; allowed: {allowed}")
        told[name] = (array.dtype, array.shape, array.nbytes)
    # Wide types first, as the library has it: so each starts at a multiple of its size.
    order = sorted(told, key=lambda name: (-told[name][0].itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name in order:
        dtype, shape, size = told[name]
        header[name] = {
            "dtype": STORED[dtype],
            "shape": shape,
            "data_offsets": (start, start + size),
        }
        start += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            array = np.require(tensors[name], requirements="C")
            file.write(array.reshape(-1).view(np.uint8))  # bfloat16 has no buffer
        file.flush()
        os.fsync(file.fileno())


def _open_tensors(folder: pathlib.Path) -> dict[str, Tensor]:
    """Every tensor of every shard, each in just one; all that the index names."""
    index = folder / INDEX
    if index.is_file() and not (folder / WEIGHTS).is_file():
        shard_of = _read_index(index)
        shards = sorted(set(shard_of.values()))
    else:
        shard_of, shards = {}, [_only_file(folder)]
    tensors: dict[str, Tensor] = {}
    found: dict[str, str] = {}
    for shard in shards:
        for name, tensor in _open_file(folder / shard).items():
            if name in tensors:
                raise InputError(
                    f"{folder}: tensor {name!r} is in {found[name]} and in {shard};"
                    " fetch the shards of one model again"
                )
            tensors[name], found[name] = tensor, shard
    for name, shard in shard_of.items():
        if found.get(name) != shard:
            raise InputError(
                f"{index}: tensor {name!r} should be in {shard} and is not; fetch the"
                " index and its shards again"
            )
    return tensors


def _read_index(path: pathlib.Path) -> dict[str, str]:
    """The shard of each tensor, all of them files of the index's folder."""
    shard_of = _read_object(path).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise InputError(f"{path} has no 'weight_map' of tensors to files")
    for tensor, shard in shard_of.items():
        if not _is_plain(shard) or not shard.endswith(".safetensors"):
            raise InputError(
                f"{path}: tensor {tensor!r} is said to be in {shard!r}; allowed is the"
                " plain name of a .safetensors file beside the index"
            )
        if not (path.parent / shard).is_file():
            raise InputError(
                f"{path}: tensor {tensor!r} is said to be in {shard}, which is missing;"
                " fetch that file too"
            )
    return shard_of


def _is_plain(name: Any) -> bool:
    """A name that stays in its folder: 'a.json', not 'b/a.json', '../a' or '/a'."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and name.isprintable()
        and not set(name) & set("/\\")
    )


def _only_file(folder: pathlib.Path) -> str:
    names = sorted(one.name for one in folder.iterdir() if one.is_file())
    files = [name for name in names if name.endswith(".safetensors")]
    if WEIGHTS in files:
        return WEIGHTS
    if len(files) == 1:
        return files[0]
    if files:
        raise InputError(
            f"{folder} holds {len(files)} .safetensors files, {files[0]} ..., and no"
            f" {INDEX}; fetch the index too"
        )
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        raise InputError(
            f"{folder} has its weights only in {pickles[0]}, a pickle: pickles are"
            " programs and never loaded; convert it, e.g. by save_pretrained() of"
            f" Transformers, to {WEIGHTS}"
        )
    raise InputError(f"{folder} holds no {WEIGHTS}; give a folder that does")


def _open_file(path: pathlib.Path) -> dict[str, Tensor]:
    """The tensors that the header tells; the library checks it against the file."""
    told = {}
    try:
        with safe_open(path, framework="numpy", backend="pread") as file:
            for name in file.keys():
                tensor = file.get_slice(name)
                told[name] = (tuple(tensor.get_shape()), tensor.get_dtype())
    except (SafetensorError, OSError) as error:
        fault = _fault(path) or str(error)
        raise InputError(
            f"{path} is not a whole safetensors file: {fault}; fetch or save it again"
        ) from error
    if not told:
        raise InputError(f"{path} holds no tensor; fetch or save it again")
    return {
        name: Tensor(
            shape, stored, functools.partial(_read_tensor, path, name, shape, stored)
        )
        for name, (shape, stored) in told.items()
    }


def _read_tensor(
    path: pathlib.Path, name: str, shape: tuple[int, ...], stored: str
) -> np.ndarray:
    if stored not in STORED.values():
        raise InputError(
            f"{path}: tensor {name!r} is stored as {stored}; allowed:"
            f" {', '.join(STORED.values())}; save the model in one of these"
        )
    try:
        # pread, not mmap: no other page counts as memory, no signal if the file shrinks
        with safe_open(path, framework="numpy", backend="pread") as file:
            array = file.get_tensor(name)
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path}: tensor {name!r} cannot be read: {error}; fetch or save it again"
        ) from error
    if STORED.get(array.dtype) != stored or array.shape != shape:
        raise InputError(f"{path}: tensor {name!r} has changed since it was opened")
    return array


def _fault(path: pathlib.Path) -> str | None:
    """Why the library refuses a file, with the tensor's name; None if unknown."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8:
                return f"it has only {size} bytes"
            if length > min(size - 8, LONGEST_HEADER):
                return f"it has {size} bytes, and its header alone should have {length}"
            header = json.loads(file.read(length))
    except OSError as error:
        return error.strerror
    except (ValueError, RecursionError):
        return "its header is not JSON"
    if not isinstance(header, dict):
        return "its header is not a JSON object"
    header.pop("__metadata__", None)
    for name, one in header.items():
        if not _is_told(one):
            return f"tensor {name!r} is told as {one!r:.80}"
    at, end = 0, size - 8 - length
    for name, one in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = one["data_offsets"]
        if stop > end:
            return f"tensor {name!r} should end at byte {stop} of {end}"
        if start != at or stop < start:
            return f"tensor {name!r} lies at bytes {start} to {stop}, not from {at} on"
        item = {text: dtype.itemsize for dtype, text in STORED.items()}.get(
            one["dtype"]
        )
        if item and math.prod(one["shape"]) * item != stop - start:
            return (
                f"tensor {name!r} of shape {one['shape']!s:.80} in {one['dtype']} does"
                f" not take {stop - start} bytes"
            )
        at = stop
    return f"its last tensor ends at byte {at} of {end}" if at < end else None


def _is_told(one: Any) -> bool:
    """{"dtype": str, "shape": [sizes], "data_offsets": [start, stop]}."""
    if not isinstance(one, dict) or not isinstance(one.get("dtype"), str):
        return False
    offsets, shape = one.get("data_offsets"), one.get("shape")
    if not isinstance(offsets, list) or not isinstance(shape, list):
        return False
    sizes = [*offsets, *shape]
    return len(offsets) == 2 and all(type(n) is int and n >= 0 for n in sizes)


def _read_tokenizer_config(folder: pathlib.Path) -> dict[str, Any]:
    """tokenizer_config.json; tokens it lacks from special_tokens_map.json."""
    path = folder / CONFIG_FILE
    config = _read_object(path) if path.is_file() else {}
    path = folder / "special_tokens_map.json"
    tokens = _read_object(path) if path.is_file() else {}
    config |= {key: tokens[key] for key in tokens if config.get(key) is None}
    path = folder / "chat_template.jinja"
    if path.is_file():
        config["chat_template"] = _read_text(path)
    return plain_tokenizer_config(config, str(folder))


def _read_sentence(folder: pathlib.Path) -> dict[str, Any]:
    """What sentence-transformers' files say, if it is pooling and a norm, no more."""
    path = folder / "modules.json"
    modules = _read_json(path) if path.is_file() else None
    if not isinstance(modules, list) or not all(isinstance(m, dict) for m in modules):
        return {}
    place_of = {str(m.get("type")).rpartition(".")[2]: m.get("path") for m in modules}
    if place_of.keys() - {"Transformer", "Pooling", "Normalize"}:
        return {}
    place = place_of.get("Pooling")
    if not _is_plain(place) or not (folder / place / "config.json").is_file():
        return {}
    modes = _read_object(folder / place / "config.json")
    chosen = [key for key in modes if "pooling_mode_" in key and modes[key] is True]
    said: dict[str, Any] = {"normalize": "Normalize" in place_of}
    if len(chosen) == 1 and chosen[0] in POOLINGS:
        said["pooling"] = POOLINGS[chosen[0]]
    path = folder / "sentence_bert_config.json"
    length = _read_object(path).get("max_seq_length") if path.is_file() else None
    return said | ({"length": length} if type(length) is int else {})


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _read_text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8; fetch it again") from error


def _read_json(path: pathlib.Path) -> Any:
    text = _read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}; fetch it again") from error


def _read_object(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; give a folder as Transformers writes it"
        )
    value = _read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} must be a JSON object; fetch it again")
    return value
