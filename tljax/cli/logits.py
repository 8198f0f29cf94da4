"""tljax logits: the logits that a model gives to token ids, for comparing models.

tokens.npy [B, L] -> float32 logits [B, L, V] in an .npz
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tljax.cli.command import Flag, check_file, read_only_flags
from tljax.cli.flags import DTYPE, MODEL
from tljax.cli.generate import check_writes
from tljax.settings import InputError

DESCRIPTION = """
Computes the logits of every position and writes them as `logits`, float32 [B, L, V].

  tljax logits --model=pkg:smollm2-135m --tokens=ids.npy --out=logits.npz

--segments=FILE.npy, of the tokens' shape, says what belongs together: 0 is padding,
and no position sees another segment. --cache goes token by token through the cache of
keys and values that generation uses, and must give the same.
"""
ROWS = 8  # of a compiled step: bounds what the device holds


def run(argv: Sequence[str]) -> None:
    """Reads, computes, writes."""
    flags = (
        MODEL,
        Flag("tokens", "FILE.npy", "token ids, integers [B, L]", required=True),
        Flag("out", "FILE.npz", "where to", required=True),
        Flag("segments", "FILE.npy", "0 = padding, else the segment's number; [B, L]"),
        Flag("cache", "", "step by step through the cache"),
        DTYPE,
    )
    given = read_only_flags(
        argv, flags, program="tljax logits", description=DESCRIPTION
    )
    if given is None:
        return
    out = Path(given["out"])
    check_file(out, ".npz")
    tokens_BL = _read_array(given["tokens"], "--tokens")
    segments_BL = np.ones_like(tokens_BL)
    if "segments" in given:
        segments_BL = _read_array(given["segments"], "--segments")
        if segments_BL.shape != tokens_BL.shape:
            raise InputError(
                f"--segments has shape {segments_BL.shape}, --tokens"
                f" {tokens_BL.shape}; they must be equal"
            )
    from tljax.cli import parts
    from tljax.cli.models import open_model

    parts.prepare_devices()
    model = open_model(given["model"], dtype=given.get("dtype", "float32"))
    _check(model, tokens_BL)
    logits_BLV = _compute(model, tokens_BL, segments_BL, cached="cache" in given)
    from tljax.train.files import write_bytes

    write_bytes(out, lambda file: np.savez(file, logits=logits_BLV))


def _read_array(name: str, flag: str) -> np.ndarray:
    """int32 [B, L] from a .npy; never a pickle, and no array larger than its file."""
    try:
        with np.errstate(over="raise"):  # in the size that its header claims
            array = np.load(name, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{flag}={name} cannot be read: {reason}") from error
    except Exception as error:  # NumPy's reader has no kind of its own
        raise InputError(
            f"{flag}={name} is no .npy, or not all of one; write it anew by numpy.save,"
            " integers of shape [B, L]"
        ) from error
    whole = isinstance(array, np.ndarray) and np.issubdtype(array.dtype, np.integer)
    if not whole or array.ndim != 2 or not array.size:
        raise InputError(f"{flag}={name} must hold integers of shape [B, L]")
    if not 0 <= array.min() <= array.max() < 2**31:
        raise InputError(f"{flag}={name} holds {array.min()} to {array.max()}")
    return array.astype(np.int32)


def _check(model, tokens_BL: np.ndarray) -> None:
    from tljax.model.transformer import output_matrix

    check_writes(model)
    rows = output_matrix(model.params).shape[0]
    if tokens_BL.max() >= rows:
        raise InputError(
            f"--tokens holds the id {tokens_BL.max()}; {model.name} has {rows} tokens"
        )
    context = model.settings.context
    if context and tokens_BL.shape[1] > context:
        raise InputError(
            f"--tokens has rows of {tokens_BL.shape[1]}; the context of {model.name} is"
            f" {context}"
        )


def _compute(
    model, tokens_BL: np.ndarray, segments_BL: np.ndarray, *, cached: bool
) -> np.ndarray:
    """float32 [B, L, V], ROWS rows at a time; `cached`: token by token."""
    import jax

    from tljax.generate import programs
    from tljax.model import transformer

    @jax.jit
    def whole(params, tokens_BL, segments_BL):
        batch = {"tokens_BL": tokens_BL, "segments_BL": segments_BL}
        states_BLD = transformer.apply(model.settings, params, batch)
        return transformer.logits_of(params, states_BLD)

    def stepped(params, tokens_BL, segments_BL):
        return programs.read(model.settings, params, tokens_BL, segments_BL)

    compute, params = stepped if cached else whole, jax.device_put(model.params)
    found = []
    for start in range(0, len(tokens_BL), ROWS):
        here = slice(start, start + ROWS)
        found.append(np.asarray(compute(params, tokens_BL[here], segments_BL[here])))
    return np.concatenate(found)
