"""What the jobs share: tokenizer, first weights, cost, devices."""

import concurrent.futures
import contextlib
import dataclasses
import math
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator

import jax

from tljax.cli.host_memory import keep_freed_memory
from tljax.data.sources import Source
from tljax.data.tokenizer import Tokenizer
from tljax.data.tokenizer_training import trained_tokenizer
from tljax.model.product import processor_has
from tljax.pretrained.checkpoint import Checkpoint
from tljax.pretrained.sources import is_uri, open_pretrained
from tljax.settings import (
    InputError,
    MeshSettings,
    ModelSettings,
    TokenizerSettings,
    from_config,
)
from tljax.train.record import read_record
from tljax.transfer.transplant import Entry

CACHE_COMPILED = pathlib.Path("xla")
_DEVICE_FLAG = "xla_force_host_platform_device_count"
_VECTOR_FLAG = "xla_cpu_prefer_vector_width"


def prepare_devices(mesh: MeshSettings | None = None) -> None:
    """Compiled programs are kept in the cache folder: a second run starts at once.

    A lone CPU runs programs in the thread that calls them, whose freed memory is kept.
    One with AMX runs element-wise loops in vectors of 512 bits, a fifth faster than in
    LLVM's choice of 256.

    Args:
      mesh: where it asks for several devices, a CPU's cores become devices of their
        own, unless XLA_FLAGS say how many there are. Without effect on a JAX that has
        begun to compute.
    """
    from tljax.data.sources import default_cache

    flags = os.environ.get("XLA_FLAGS", "")
    if processor_has("amx_tile") and _VECTOR_FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_VECTOR_FLAG}=512".strip()
    wanted = math.prod(dataclasses.astuple(mesh)) if mesh else 1
    if wanted > 1 and _DEVICE_FLAG not in os.environ.get("XLA_FLAGS", ""):
        cores = os.cpu_count() or 1
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", min(wanted, cores))
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = default_cache() / CACHE_COMPILED
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    # the cache cannot keep oneDNN's programs (model/product.py)
    warnings.filterwarnings("ignore", ".*onednn-fusion", UserWarning)
    if wanted == 1:
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        if jax.default_backend() == "cpu":
            keep_freed_memory()


def jit_for_one_call(function: Callable, **more) -> Callable:
    """jax.jit; on CPU LLVM tries less hard, which gives the same numbers.

    To draw first weights a program of drawn numbers is compiled for longer than it
    runs: .6 s less of 1.6 for a small decoder.
    """
    less = {"xla_backend_optimization_level": 1}
    options = less if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=options, **more)


@contextlib.contextmanager
def aside(*works: Callable[[], object]) -> Iterator[list[concurrent.futures.Future]]:
    """Does the works in threads of their own while the block runs; ends with both.

    For compiling, which needs neither Python nor, mostly, more than one core.

    Yields:
      Their futures.

    Raises:
      What a work raised, unless the block raised.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
        begun = [pool.submit(one) for one in works]
        yield begun
    for one in begun:
        one.result()


def get_tokenizer(
    settings: TokenizerSettings, inherited: str, folder: pathlib.Path, source: Source
) -> Tokenizer:
    """The run's tokenizer: its own if there, a run's, or one trained on the source.

    Args:
      settings: config.tokenizer.
      inherited: run folder of init.source; '' = none.
      folder: the run folder, where the tokenizer is kept.
      source: its training split trains a new tokenizer.
    """
    path = folder / "tokenizer.json"
    if path.exists():
        return Tokenizer.load(path)
    tokenizer = find_tokenizer(settings, inherited, source)
    tokenizer.save(path)
    return tokenizer


def find_tokenizer(
    settings: TokenizerSettings, inherited: str, source: Source
) -> Tokenizer:
    """The tokenizer of a run that has not begun; arguments as of `get_tokenizer`."""
    origin = settings.source or inherited
    if origin:
        tokenizer = _tokenizer_of(origin, settings)
        other = inherited not in ("", origin)
        if other and _tokenizer_of(inherited, settings).sha256 != tokenizer.sha256:
            raise InputError(
                f"config.tokenizer.source={origin} has another tokenizer than"
                f" config.init.source={inherited}: its embeddings would mean other"
                " tokens; set config.tokenizer.source=''"
            )
        return tokenizer
    return trained_tokenizer(
        source, vocab_size=settings.vocab_size, normalization=settings.normalization
    )


def checkpoint_tokenizer(checkpoint: Checkpoint) -> Tokenizer | None:
    """The tokenizer of other people's checkpoint; None if it has none.

    Raises:
      InputError: it cannot be used, or has more tokens than the embedding rows, or a
        token of its own that has none.
    """
    if checkpoint.tokenizer_json is None:
        return None
    tokenizer = Tokenizer.from_parts(
        checkpoint.tokenizer_json, checkpoint.tokenizer_config, checkpoint.where
    )
    rows = checkpoint.config.get("vocab_size", 0)
    if tokenizer.text_vocab_size > rows:  # Gemma adds a token that has no row
        raise InputError(
            f"{checkpoint.where}: the tokenizer has {tokenizer.text_vocab_size} tokens,"
            f" the embedding {rows} rows; they are not of one model"
        )
    for index, token in tokenizer.special_ids.items():
        if index >= rows:
            raise InputError(
                f"{checkpoint.where}: the tokenizer puts in {token!r:.60}, id {index},"
                f" but the embedding has {rows} rows; take another token in"
                " tokenizer_config.json and tokenizer.json"
            )
    return tokenizer


def _tokenizer_of(origin: str, settings: TokenizerSettings) -> Tokenizer:
    """A run's tokenizer, if it was trained as these settings say, or a checkpoint's."""
    if is_uri(origin):
        found = checkpoint_tokenizer(open_pretrained(origin))
        if found is None:
            raise InputError(f"{origin} has no tokenizer.json beside its weights")
        return found
    config = read_record(run_file(origin, "config.json"))
    path = pathlib.Path(origin) / "tokenizer.json"
    if not path.exists():
        raise InputError(f"{origin} has no tokenizer.json; put its model's own there")
    if "tokenizer" not in config:  # imported: trained by others
        return Tokenizer.load(path)
    where = f"{origin}: config.tokenizer"
    theirs = from_config(TokenizerSettings, config["tokenizer"], where)
    for name in ("vocab_size", "normalization"):
        own, other = getattr(settings, name), getattr(theirs, name)
        if own != other:
            raise InputError(
                f"config.tokenizer.{name} is {own!r}, but the tokenizer of {origin} was"
                f" trained with {other!r}; set that, or take no tokenizer from there"
            )
    return Tokenizer.load(path)


def run_file(folder: str | pathlib.Path, name: str) -> pathlib.Path:
    """A file of a run folder that the user named.

    Raises:
      InputError: no such folder, or it is no run folder.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder; name a run folder of `tljax train`"
        )
    if not (folder / name).exists():
        raise InputError(f"{folder} holds no {name}; it is not a run that has ended")
    return folder / name


def matrix_parameters(params: dict) -> int:
    """Parameters that take part in matrix products in the layers."""
    return sum(
        leaf.size for leaf in jax.tree.leaves(params["layers"]) if leaf.ndim == 2
    )


def forward_flops(params: dict, *, tokens: int, output: bool) -> float:
    """FLOPs of a forward pass: 2 a matrix parameter and token (attention left out).

    Args:
      params: counted.
      tokens: passed through.
      output: whether the vocabulary's product is computed too.
    """
    per_token = 2.0 * matrix_parameters(params)
    if output:
        per_token += 2.0 * params["embedding"]["tokens"].size
    return per_token * tokens


def training_flops(moving: dict, frozen: dict, *, tokens: int) -> float:
    """FLOPs of training steps: 6 a moving matrix parameter and token, 4 a frozen one.

    Args:
      moving: what the optimizer changes.
      frozen: what gradients pass through.
      tokens: computed, padding included.
    """
    moved, kept = (matrix_parameters({"layers": {}, **one}) for one in (moving, frozen))
    return (6.0 * moved + 4.0 * kept) * tokens


def at_read_tokens(model: ModelSettings, params: dict) -> dict:
    """What is applied at the read tokens alone, of a tree of parts of a model.

    All of the top layer but keys and values, as `transformer.apply` has it for read_BM.
    """
    layers = {} if model.scan_layers else params.get("layers", {})
    top = layers.get(str(model.depth - 1), {})
    attention = {
        name: one
        for name, one in top.get("attention", {}).items()
        if name not in ("key", "value")
    }
    return {"layers": {"top": {**top, "attention": attention}}}


def data_facts(source: Source, splits: tuple[str, ...]) -> dict:
    """What the manifest says of a source."""
    return {
        source.uri: {
            **{split: source.split_hash(split) for split in splits},
            "licence": source.facts.licence,
            "sha256": source.facts.sha256,
        }
    }


def ledger_facts(
    source: str, ledger: list[Entry] | None, sha256: str | None
) -> dict | None:
    """What the manifest says of a transplant; None if the run began from scratch.

    Args:
      source: run folder or URI.
      ledger: of the transplant.
      sha256: `params_sha256` of the source.
    """
    if ledger is None:
        return None
    paths = {
        what: [entry.path for entry in ledger if entry.what == what]
        for what in ("copied", "fresh", "left")
    }
    return {
        "source": source,
        **paths,
        "copied": len(paths["copied"]),
        "params_sha256": sha256,
    }


def stop_fact(stopped: dict | None) -> dict:
    """What the last record says of a run that ended early; {} of others."""
    return {"stopped": stopped} if stopped else {}


def count(params: dict) -> int:
    """Number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
