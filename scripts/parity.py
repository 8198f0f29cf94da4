"""Compares tljax with Transformers: tiny models of every family, and two real ones.

    python scripts/parity.py --peers=DIR --work=DIR      (scripts/parity.sh calls it)

For each: logits (an encoder's last states) as they are, step by step through the
cache, exported and read by Transformers; for the real ones against Transformers in
float64, and token ids on 10,000 lines. Exit status 1 if a number is out of bounds.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = pathlib.Path(__file__).parents[1]
BOUND = 2e-4  # of the largest difference of tiny models' logits, float32
LINES = 10_000


class Parity:
    """The comparisons and their table."""

    def __init__(self, peers: pathlib.Path, work: pathlib.Path):
        self.peers, self.work = peers, work
        self.python = work / "env" / "bin" / "python"
        self.rows: list[tuple[str, str, float, float]] = []

    def add(self, model: str, what: str, error: float, bound: float) -> None:
        self.rows.append((model, what, error, bound))
        sign = "ok" if error <= bound else "TOO LARGE"
        print(f"{model}: {what}: {error:.2e} (bound {bound:.2e}) {sign}", flush=True)

    def theirs(self, source: pathlib.Path, name: str, *flags: object) -> dict:
        """What Transformers computes for WORK/inputs."""
        out = self.work / "outputs" / f"{name}.npz"
        out.parent.mkdir(parents=True, exist_ok=True)
        tokens = ["--tokens", self.work / "inputs" / "tokens.npy"]
        command = [self.python, self.peers / "logits.py", "--checkpoint", source]
        _run([*command, *tokens, "--out", out, *flags])
        return dict(np.load(out))

    def ours(self, model: str, name: str, *flags: str) -> np.ndarray:
        """The same by `tljax logits`."""
        out = self.work / "outputs" / f"{name}.npz"
        tokens = f"--tokens={self.work / 'inputs' / 'tokens.npy'}"
        _tljax("logits", f"--model={model}", tokens, f"--out={out}", *flags)
        return np.load(out)["logits"]

    def inputs(self, **arrays: np.ndarray) -> None:
        for name, array in arrays.items():
            (self.work / "inputs").mkdir(parents=True, exist_ok=True)
            np.save(self.work / "inputs" / f"{name}.npy", array)

    def segments(self) -> str:
        return f"--segments={self.work / 'inputs' / 'mask.npy'}"

    def tiny(self, case: str) -> None:
        """One family's tiny model."""
        folder = self.work / "checkpoints" / case
        self.inputs(**{n: np.load(folder / f"{n}.npy") for n in ("tokens", "mask")})
        real = np.load(folder / "mask.npy") > 0
        wanted = np.load(folder / "o.npz")["logits"]
        mask = ["--mask", self.work / "inputs" / "mask.npy"]

        def error(found):
            return float(np.abs(found - wanted)[real].max())

        ours = self.ours(f"hf:{folder}", "ours", self.segments())
        self.add(case, "logits, padded", error(ours), BOUND)
        cached = self.ours(f"hf:{folder}", "cached", self.segments(), "--cache")
        self.add(case, "through the cache", error(cached), BOUND)
        model, out = self.work / "imported" / case, self.work / "exported" / case
        _fresh(model)
        _fresh(out)
        _tljax("import", f"--source=hf:{folder}", f"--out={model}")
        _tljax("export", f"--run={model}", f"--out={out}")
        again = self.theirs(out, "again", *mask)["logits"]
        self.add(case, "exported, in Transformers", error(again), BOUND)

    def encoder(self, case: str) -> None:
        """The tiny BERT: last states, by the library (`tljax logits` refuses it)."""
        folder = self.work / "checkpoints" / case
        given = {n: np.load(folder / f"{n}.npy") for n in ("tokens", "mask", "types")}
        found = _states(f"hf:{folder}", **given)
        wanted = np.load(folder / "o.npz")["hidden"]
        error = np.abs(found - wanted)[given["mask"] > 0].max()
        self.add(case, "last states, padded", float(error), BOUND)

    def smollm2(self) -> None:
        """The real decoder, against float64."""
        from tljax.pretrained.sources import open_pretrained

        checkpoint = open_pretrained("pkg:smollm2-135m")
        path = pathlib.Path(checkpoint.where)
        tokens = np.random.default_rng(0).integers(100, 40_000, (2, 64))
        self.inputs(tokens=tokens, mask=np.ones_like(tokens))
        exact = self.theirs(path, "exact", "--float64")["logits"]
        their_error = np.abs(self.theirs(path, "theirs")["logits"] - exact).max()
        for what, flags in {"logits": (), "through the cache": ("--cache",)}.items():
            ours = self.ours("pkg:smollm2-135m", "ours", *flags)
            error = float(np.abs(ours - exact).max())
            self.add("smollm2", f"{what}, to float64", error, 2 * float(their_error))
        self.tokens_of("smollm2", checkpoint, path, gguf=True)

    def minilm(self) -> None:
        """The real encoder, against float64, and sentence vectors."""
        from tljax.pretrained.sources import open_pretrained

        checkpoint = open_pretrained("pkg:minilm-l6")
        folder = pathlib.Path(checkpoint.where)
        random = np.random.default_rng(0)
        tokens = random.integers(1000, 30_000, (2, 48))
        mask = np.ones_like(tokens)
        mask[1, 30:] = 0
        self.inputs(tokens=tokens, mask=mask)
        flags = ["--kind", "encoder", "--mask", self.work / "inputs" / "mask.npy"]
        exact = self.theirs(folder, "exact", *flags, "--float64")["hidden"]
        theirs = self.theirs(folder, "theirs", *flags)["hidden"]
        real = mask > 0
        ours = _states("pkg:minilm-l6", tokens=tokens, mask=mask)
        error = float(np.abs(ours - exact)[real].max())
        bound = 2 * float(np.abs(theirs - exact)[real].max())
        self.add("minilm", "last states, to float64", error, bound)
        self.tokens_of("minilm", checkpoint, folder, gguf=False)
        texts, ours = self.work / "texts.txt", self.work / "ours.npy"
        texts.write_text("\n".join(real_lines()[:200]) + "\n")
        _tljax("embed", "--model=pkg:minilm-l6", f"--input={texts}", f"--out={ours}")
        theirs = self.work / "theirs.npy"
        _run([self.python, "-c", SENTENCES, folder, texts, theirs])
        error = float(np.abs(np.load(ours) - np.load(theirs)).max())
        self.add("minilm", "vectors, to sentence-transformers", error, 1e-5)

    def tokens_of(self, name, checkpoint, path, *, gguf: bool) -> None:
        """Lines whose token ids differ from Transformers'."""
        from tljax.cli.parts import checkpoint_tokenizer

        lines, out = self.work / "lines.txt", self.work / "ids.npz"
        lines.write_text("\0".join(real_lines()), encoding="utf-8")
        _run([self.python, "-c", TOKENS, path, lines, out, str(int(gguf))])
        flat, ends = (np.load(out)[key] for key in ("ids", "ends"))
        theirs = np.split(flat, ends[:-1])
        ours = checkpoint_tokenizer(checkpoint).encode(real_lines(), special=not gguf)
        differ = sum(
            not np.array_equal(one, other)
            for one, other in zip(ours, theirs, strict=True)
        )
        self.add(name, f"lines of {len(ours):,} with other ids", float(differ), 0.0)

    def gguf_round_trip(self, case: str) -> None:
        """A tiny model as GGUF, read by Transformers."""
        folder, out = self.work / "checkpoints" / case, self.work / "gguf" / case
        self.inputs(**{n: np.load(folder / f"{n}.npy") for n in ("tokens", "mask")})
        wanted = np.load(folder / "o.npz")["logits"]
        _fresh(out)
        model = self.work / "imported" / case
        command = ["export", f"--run={model}", f"--out={out}", "--format=gguf"]
        _tljax(*command, "--stored=F32")
        mask = self.work / "inputs" / "mask.npy"
        found = self.theirs(next(out.glob("*.gguf")), "gguf", "--mask", mask)["logits"]
        real = np.load(mask) > 0
        error = float(np.abs(found - wanted)[real].max())
        self.add(case, "as GGUF, in Transformers", error, BOUND)

    def adapter(self, case: str, method: str) -> None:
        """What a method adds to a tiny model, read by PEFT."""
        import jax

        from tljax.cli.models import open_model
        from tljax.model import transformer
        from tljax.pretrained.families import write_config
        from tljax.pretrained.folder import write_adapter_folder
        from tljax.pretrained.peft import peft_adapter
        from tljax.settings import TransferSettings
        from tljax.transfer.method import compose, prompt_places, split

        folder, out = self.work / "checkpoints" / case, self.work / "adapters" / case
        _fresh(out)
        model = open_model(f"hf:{folder}", dtype="float32")
        transfer = TransferSettings(method=method, **ADAPTERS[method])
        moving, frozen = split(model.params, transfer, jax.random.key(0))
        random = np.random.default_rng(0)
        moving = jax.tree.map(  # off its start, lest nothing be compared
            lambda x: x + random.standard_normal(x.shape, np.float32) * 0.1, moving
        )
        tokens, mask = (np.load(folder / f"{n}.npy") for n in ("tokens", "mask"))
        places = prompt_places(transfer)  # before every text, of any tokens
        room = ((0, 0), (places, 0))
        batch = {
            "tokens_BL": np.pad(tokens.astype(np.int32), room),
            "segments_BL": np.pad(mask.astype(np.int32), room, constant_values=1),
        }

        @jax.jit
        def logits(moving, frozen):
            params, adapter = compose(moving, frozen, transfer)
            states = transformer.apply(model.settings, params, batch, adapter=adapter)
            return transformer.logits_of(params, states[:, places:])

        ours = np.asarray(logits(moving, frozen))
        family, _ = write_config(model.settings, ours.shape[-1])
        config, tensors = peft_adapter(
            moving, family, transfer, model=model.settings, base=str(folder)
        )
        write_adapter_folder(out, config=config, tensors=tensors, model_card="")
        found = self.work / "outputs" / "adapter.npz"
        _run([self.python, "-c", ADAPTER, folder, out, found])
        theirs = np.load(found)
        if np.abs(theirs["logits"] - theirs["base"]).max() < 100 * BOUND:
            sys.exit(f"{case}: {method} changes nothing, so nothing is compared")
        error = float(np.abs(ours - theirs["logits"])[mask > 0].max())
        self.add(case, f"{method}, in PEFT", error, BOUND)


ADAPTERS = {
    "lora": {"rank": 3, "alpha": 5.0, "scaling": "rank_stabilized"},
    "dora": {"rank": 3, "alpha": 5.0},
    "ia3": {},
    "prompt": {"prompt_length": 3},
    "prefix": {"prefix_length": 3},
}
ADAPTER = """
import sys, pathlib, numpy as np, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
folder, adapter, out = map(pathlib.Path, sys.argv[1:])
model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
tokens, mask = (torch.tensor(np.load(folder / f"{n}.npy").astype(np.int64))
                for n in ("tokens", "mask"))
with torch.no_grad():
    base = model(input_ids=tokens, attention_mask=mask).logits.numpy()
    model = PeftModel.from_pretrained(model, adapter).eval()
    logits = model(input_ids=tokens, attention_mask=mask).logits.numpy()
np.savez(out, logits=logits[:, -tokens.shape[1]:], base=base)
"""
SENTENCES = """
import sys, pathlib, numpy as np
from sentence_transformers import SentenceTransformer
folder, texts, out = sys.argv[1:]
model = SentenceTransformer(folder)
np.save(out, model.encode(pathlib.Path(texts).read_text().split("\\n")[:-1]))
"""
TOKENS = """
import sys, pathlib, numpy as np
from transformers import AutoTokenizer
path, lines, out, gguf = sys.argv[1:]
path = pathlib.Path(path)
where = {"gguf_file": path.name} if int(gguf) else {}
tokenizer = AutoTokenizer.from_pretrained(path.parent if int(gguf) else path, **where)
if int(gguf):  # its GGUF reader does not know pre=smollm: SmolLM2 splits digits first
    from tokenizers import pre_tokenizers as pre
    tokenizer.backend_tokenizer.pre_tokenizer = pre.Sequence(
        [pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)])
texts = pathlib.Path(lines).read_text(encoding="utf-8").split("\\0")
ids = [tokenizer(t, add_special_tokens=not int(gguf)).input_ids for t in texts]
ends = np.cumsum([len(one) for one in ids])
np.savez(out, ids=np.concatenate(ids).astype(int), ends=ends)
"""


def real_lines() -> list[str]:
    """10,000 lines: film reviews, our own source code, and awkward Unicode."""
    from tljax.data.sources import open_source

    odd = [
        "naïve café, Привет, мир!  don't  we'll",
        "日本語のテキスト مرحبا بالعالم",
        "\U0001f642\U0001f469\u200d\U0001f467 \u00a0\u2003x\t y ﬁ Ⅷ ½",
        "1234567 3.14159 0x1F",
    ]
    code = [
        line
        for path in sorted((ROOT / "tljax").rglob("*.py"))
        for line in path.read_text("utf-8").split("\n")
        if line.strip()
    ][:3000]
    source = open_source("pkg:rotten_tomatoes")
    reviews = [x.text for split in source.splits for x in source.examples(split)]
    return (odd + code + reviews)[:LINES]


def _states(model: str, tokens, mask, types=None) -> np.ndarray:
    """An encoder's last states, float32 [B, L, D]."""
    import jax

    from tljax.cli.models import open_model
    from tljax.model import transformer

    found = open_model(model, dtype="float32")
    batch = {"tokens_BL": tokens.astype(np.int32), "segments_BL": mask.astype(np.int32)}
    if types is not None:
        batch["types_BL"] = types.astype(np.int32)
    apply = jax.jit(lambda params: transformer.apply(found.settings, params, batch))
    return np.asarray(apply(found.params))


def _tljax(*arguments: str) -> None:
    from tljax.cli.main import main as tljax

    if tljax([str(one) for one in arguments]):
        sys.exit(f"tljax {' '.join(map(str, arguments))} failed")


def _run(command: list) -> None:
    done = subprocess.run([str(x) for x in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(str(x) for x in command[:4])}: {done.stderr[-2000:]}")


def _fresh(folder: pathlib.Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)


def main() -> int:
    """Compares everything; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--only", choices=("tiny", "real"))
    given = parser.parse_args()
    parity = Parity(given.peers.resolve(), given.work.resolve())
    if given.only != "real":
        make = ROOT / "tests" / "pretrained" / "golden" / "make.py"
        kept = f"--keep={parity.work / 'checkpoints'}"
        logits = f"--logits={parity.peers / 'logits.py'}"
        _run([parity.python, make, logits, kept, f"--out={parity.work / 'golden'}"])
        for path in sorted((parity.work / "golden").glob("*.json")):
            if path.stem == "bert":
                parity.encoder(path.stem)
            else:
                parity.tiny(path.stem)
        for case in ("llama_plain", "qwen2_plain"):
            parity.gguf_round_trip(case)
        for case in ("llama_plain", "qwen2_plain", "qwen3", "gemma3_text"):
            for method in ADAPTERS:
                if (case, method) != ("gemma3_text", "prefix"):  # windows would hide it
                    parity.adapter(case, method)
    if given.only != "tiny":
        parity.smollm2()
        parity.minilm()
    table = Table("model", "what", "largest difference", "bound", "")
    for model, what, error, bound in parity.rows:
        good = error <= bound
        table.add_row(
            model, what, f"{error:.2e}", f"{bound:.2e}", "ok" if good else "NO"
        )
    Console().print(table)
    return int(any(error > bound for _, _, error, bound in parity.rows))


if __name__ == "__main__":
    sys.exit(main())
