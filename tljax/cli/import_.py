"""tljax import: other people's checkpoints become run folders of ours, with a ledger.

URI -> config.json, params/, tokenizer.json, ledger.json, manifest.json
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from tljax.cli.command import Flag, check_new_folder, read_only_flags
from tljax.data.folders import whole_folder
from tljax.settings import InputError

DESCRIPTION = """
Reads a checkpoint tensor by tensor and writes it as a folder that every --model=,
--run= and --config.init.source= takes. ledger.json says of each tensor which parameter
it became; one that has no place, or a place without tensor, is an error.

  tljax import --source=pkg:smollm2-135m --out=models/smollm2
  tljax import --source=hf:downloads/Qwen3-0.6B --out=models/qwen3
  tljax import --source=gguf:model.Q4_K_M.gguf --out=models/mine

Families: llama (also SmolLM2, Mistral), qwen2, qwen3, gemma3 (text), gpt2, bert.
"""
BESIDE_BYTES = 2**20  # about, of a tokenizer and what is written of every run
OUT = Flag("out", "DIR", "a folder that is not there yet", required=True)


def run(argv: Sequence[str]) -> None:
    """Reads and writes; the folder appears whole or not at all."""
    from tljax.pretrained.packaged import MODELS
    from tljax.pretrained.sources import is_uri

    forms = ["hf:DIR", "hf:ORG/NAME", "gguf:FILE", *(f"pkg:{name}" for name in MODELS)]
    allowed = f"{', '.join(forms[:-1])} or {forms[-1]}"
    flags = (Flag("source", "URI", allowed, required=True), OUT)
    given = read_only_flags(
        argv, flags, program="tljax import", description=DESCRIPTION
    )
    if given is None:
        return
    out, source = Path(given["out"]), given["source"]
    check_new_folder(out)
    if not is_uri(source):
        raise InputError(f"--source={source} is no URI of a checkpoint; give {allowed}")
    import jax

    from tljax.cli import parts
    from tljax.cli.models import open_model

    started = time.monotonic()
    model = open_model(source, place=lambda path, value: jax.device_put(value))
    leaves = jax.tree.leaves(model.params)
    size_bytes = sum(leaf.nbytes for leaf in leaves) + BESIDE_BYTES
    with whole_folder(out, size_bytes=size_bytes) as folder:
        if model.tokenizer is not None:  # first: what it held serves to write the rest
            model.tokenizer.save(folder / "tokenizer.json")
            model = dataclasses.replace(model, tokenizer=None)
        _write(model, folder, time.monotonic() - started)
    print(
        f"{out}: {parts.count(model.params):,} parameters from {len(model.ledger)}"
        f" tensors in {time.monotonic() - started:.0f} s (ledger.json tells each)"
    )


def _write(model, folder: Path, seconds: float) -> None:
    from tljax.cli import parts
    from tljax.settings import to_dict
    from tljax.train.checkpoint import params_sha256, save_params
    from tljax.train.files import write_json
    from tljax.train.record import manifest_facts

    config = {
        "kind": "import",
        "source": model.name,
        "model": to_dict(model.settings),
        "origin": dict(model.origin),
        "sentence": dict(model.sentence),
    }
    write_json(folder / "config.json", config)
    write_json(folder / "ledger.json", [line._asdict() for line in model.ledger])
    save_params(folder / "params", model.params)
    write_json(
        folder / "manifest.json",
        {
            **manifest_facts(config),
            "parameters": parts.count(model.params),
            "params_sha256": params_sha256(model.params),
            "time_seconds": seconds,
        },
    )
