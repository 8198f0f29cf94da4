"""Prompts -> token ids that follow them, through a cache, a whole batch at a time.

  prompts padded at their beginning  . . a b | x y |   then one token a row and step;
  to a bucket, and so are the rows   c d e f | z   |   a row that has ended idles

Row i draws token t with fold_in(key(seeds[i]), t): its text is the same whichever rows
stand beside it, streamed or not. Never reads or writes text: that is the caller's.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tljax.generate import programs
from tljax.generate.sampling import Sampling
from tljax.model import transformer
from tljax.model.cache import for_extending
from tljax.model.product import product_dtype
from tljax.settings import LAST_SEED, InputError, ModelSettings

# Steps between two looks of the host: Ctrl-C works, and a chunk costs no round trip.
_CHUNK = 64
_STREAMED_CHUNK = 8

OnToken = Callable[[int, int], bool]


class Generator:
    """A model ready to write.

    Args:
      settings: of a causal model.
      params: its tree; kept in the dtype of products of few rows, norms as they are.
      end_ids: tokens that end a text.

    Raises:
      InputError: a model that is not causal, an end token that it does not have.
    """

    def __init__(
        self, settings: ModelSettings, params: dict, *, end_ids: Sequence[int]
    ):
        if not settings.causal:
            raise InputError(
                "a model with causal=False cannot write; take a causal one"
            )
        dtype = product_dtype(settings.dtype, few_rows=True).name
        self._settings = settings = dataclasses.replace(settings, dtype=dtype)
        self._params = for_extending(settings, params)
        self._vocab_size = transformer.output_matrix(params).shape[0]
        ends_V = np.zeros(self._vocab_size, bool)
        ends_V[self._known(end_ids, "end_ids")] = True
        self._ends_V = jnp.asarray(ends_V)

    def generate(
        self,
        prompts: Sequence[np.ndarray],
        *,
        max_new: int,
        sampling: Sampling,
        seeds: Sequence[int],
        on_token: OnToken | None = None,
    ) -> list[np.ndarray]:
        """Token ids that follow each prompt.

        Args:
          prompts: ids, integers [L] with their own L of at least 1.
          max_new: most tokens written for one prompt.
          sampling: how each is drawn.
          seeds: one for each prompt, 0 to 2^32 - 1: the same prompt with the same seed
            gets the same text. Rows of equal prompts need different seeds.
          on_token: on_token(row, token) is called for each token, few at a time and in
            the order of steps; where it returns True, the row ends with that token.

        Returns:
          int32 [length], one for each prompt, without prompt and end token.

        Raises:
          InputError: a prompt that is empty, has tokens that the model has not, or does
            not fit the model's context with max_new; a seed or sampling out of range.
        """
        prompts = self.check(prompts, max_new=max_new)
        self._check_drawing(len(prompts), sampling, seeds)
        if not prompts:
            return []
        batch, rule = self._batch(prompts), self._rule(sampling, seeds)
        state = programs.start(self._settings, self._params, batch, rule)
        length = batch["tokens_BL"].shape[1]
        state = programs.grow(state, room=bucket(length + max_new - 1) - length)
        return self._write(state, rule, len(prompts), max_new, on_token)

    def check(
        self,
        prompts: Sequence[np.ndarray],
        *,
        max_new: int,
        names: Sequence[str] | None = None,
    ) -> list[np.ndarray]:
        """The prompts as int32, if `generate` takes them: asked before long work.

        Args:
          prompts: as in `generate`.
          max_new: as in `generate`.
          names: what a refusal calls each prompt; None = prompts[0] and so on.

        Raises:
          InputError: as `generate`, of the prompts and max_new.
        """
        if max_new < 1:
            raise InputError(f"max_new is {max_new}; it must be at least 1")
        names = names or [f"prompts[{i}]" for i in range(len(prompts))]
        prompts = [self._known(*one) for one in zip(prompts, names, strict=True)]
        for name, prompt in zip(names, prompts, strict=True):
            if not len(prompt):
                raise InputError(
                    f"{name} is empty; write something there: the model goes on from a"
                    " token"
                )
            self._check_context(name, len(prompt), max_new)
        return prompts

    def _write(self, state, rule, rows, max_new, on_token):
        """Advances until every row has ended; hands tokens out on the way."""
        texts = [[] for _ in range(rows)]
        stopped_B = np.zeros(state.done_B.shape, bool)
        drawn, chunk = 0, 1 if on_token else _CHUNK
        while True:
            # copies: what the next step is given, it overwrites
            new_BL, length_B, done_B = (
                np.array(x) for x in (state.new_BL, state.length_B, state.done_B)
            )
            start, drawn = drawn, int(state.drawn)
            for step in range(start, drawn):
                for row in np.flatnonzero(step < length_B[:rows]):
                    if stopped_B[row]:
                        continue
                    token = int(new_BL[row, step])
                    texts[row].append(token)
                    stopped_B[row] = bool(on_token and on_token(int(row), token))
            if drawn >= max_new or (done_B | stopped_B).all():
                return [np.array(text, np.int32) for text in texts]
            limit = np.int32(min(drawn + chunk, max_new))
            chunk = min(2 * chunk, _STREAMED_CHUNK) if on_token else _CHUNK
            state = programs.advance(
                self._settings, self._params, state, rule, stopped_B, limit
            )

    def _known(self, ids, where):
        """The ids as int32, if the model has them all."""
        ids = np.asarray(ids)
        if ids.size and not np.issubdtype(ids.dtype, np.integer):
            raise InputError(f"{where} has numbers of {ids.dtype}; ids are integers")
        if ids.ndim != 1:
            raise InputError(f"{where} has shape {ids.shape}; it must be one row")
        bad = ids[(ids < 0) | (ids >= self._vocab_size)]
        if bad.size:
            raise InputError(
                f"{where} has the id {bad[0]}; the model has 0 to"
                f" {self._vocab_size - 1}: was another tokenizer used?"
            )
        return ids.astype(np.int32)

    def _check_drawing(self, rows, sampling, seeds):
        sampling.check("sampling")
        if len(seeds) != rows:
            raise InputError(
                f"{len(seeds)} seeds for {rows} prompts; give one for each"
            )
        for seed in seeds:
            whole = isinstance(seed, int | np.integer)
            if not (whole and 0 <= seed <= LAST_SEED):
                raise InputError(
                    f"a seed is {seed}; it must be a whole number in [0, {LAST_SEED}]"
                )

    def _check_context(self, name, length, max_new):
        context = self._settings.context
        if not context or length + max_new <= context:
            return
        if length >= context:
            raise InputError(
                f"{name} has {length} tokens; prompt and answer together may have"
                f" {context}, the model's context: shorten the prompt"
            )
        raise InputError(
            f"{name} has {length} tokens, which with {max_new} new ones exceed the"
            f" model's {context}; set max_new to at most {context - length}, or shorten"
            " the prompt"
        )

    def _batch(self, prompts):
        """Prompts padded at their beginning; rows up to a power of two are empty."""
        length = bucket(max(map(len, prompts)))
        if self._settings.positions == "learned" and length <= programs.PIECE:
            length = min(length, self._settings.context)
        shape = (self._rows(len(prompts)), length)
        names = ("tokens_BL", "segments_BL", "positions_BL")
        batch = {name: np.zeros(shape, np.int32) for name in names}
        for row, prompt in enumerate(prompts):
            here = (row, slice(length - len(prompt), length))
            batch["tokens_BL"][here] = prompt
            batch["segments_BL"][here] = 1
            batch["positions_BL"][here] = np.arange(len(prompt))
        return batch

    def _rows(self, count):
        """A power of two. For one bfloat16 row XLA copies all weights to float32 on a
        CPU, at every call; for two it multiplies them as they are."""
        short = product_dtype(self._settings.dtype) == jnp.bfloat16
        least = 2 if short and jax.default_backend() == "cpu" else 1
        return max(least, 1 << (count - 1).bit_length())

    def _rule(self, sampling, seeds):
        padded_B = np.zeros(self._rows(len(seeds)), np.uint32)
        padded_B[: len(seeds)] = seeds
        # numbers of one type, so that 1 and 1.0 share a program
        sampling = jax.tree.map(np.float32, sampling)
        return programs.Rule(sampling, programs.keys(padded_B), self._ends_V)


def bucket(size: int) -> int:
    """The next of 32, 48, 64, 96, 128 ...: few programs, at most a third unused."""
    power = 1 << (max(size, 32) - 1).bit_length()
    between = power // 4 * 3
    return between if 32 < size <= between else power
