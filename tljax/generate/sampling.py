"""Logits -> one token a row. Never looks at another row, never sorts the vocabulary.

penalty -> temperature -> top-k -> top-p -> min-p -> draw;  temperature 0: the largest

The filters are those of Transformers' logits processors, in their order. Equally likely
tokens are kept or left out together, so that no choice hangs on the vocabulary's order.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.settings import InputError

_RANK_BITS = 32


def _number(
    help: str,
    *,
    low: float = 0,
    above: float | None = None,
    high: float,
    default: float = dataclasses.MISSING,
) -> Any:
    """As `settings.setting`; `above` is a bound that is itself not allowed."""
    limits = {"low": low, "above": above, "high": high, "choices": None}
    return dataclasses.field(default=default, metadata={"help": help, **limits})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. A tree of numbers: other numbers compile nothing anew.

    Source: top-k, Fan et al. 2018; top-p, Holtzman et al. 2020, equation 2; min-p,
    Nguyen et al. 2024; repetition penalty, Keskar et al. 2019, section 4.1 (a negative
    logit is multiplied instead, as in Transformers: dividing would reward it).
    """

    temperature: float = _number(
        "logits are divided by this; 0 = always the likeliest token", high=1000
    )
    top_k: int = _number("tokens kept, the likeliest; 0 = all", high=10**9, default=0)
    top_p: float = _number(
        "the fewest tokens whose probabilities reach this are kept; 1 = all",
        above=0,
        high=1,
        default=1.0,
    )
    min_p: float = _number(
        "tokens at least this times as likely as the likeliest are kept; 0 = all",
        high=1,
        default=0.0,
    )
    repetition_penalty: float = _number(
        "logits of tokens in the prompt or written are divided (negative: multiplied)"
        " by this; 1 = off",
        low=0.001,
        high=1000,
        default=1.0,
    )

    def check(self, where: str, *, joint: str = ".") -> None:
        """Raises InputError at the first number out of range: 'WHERE.top_k is -1'."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not _is_allowed(value, field):
                raise InputError(
                    f"{where}{joint}{field.name} is {value!r}; it must be"
                    f" {_allowed_range(field)}: {field.metadata['help']}"
                )


def _allowed_range(field: dataclasses.Field) -> str:
    """'a number above 0 and at most 1', of a field of Sampling."""
    limits = field.metadata
    kind = "a whole number" if field.type is int else "a number"
    above = limits["above"]
    least = f"of at least {limits['low']}" if above is None else f"above {above}"
    return f"{kind} {least} and at most {limits['high']:,}"


def _is_allowed(value: Any, field: dataclasses.Field) -> bool:
    limits = field.metadata
    kind = int if field.type is int else int | float
    if not isinstance(value, kind) or isinstance(value, bool):
        return False
    if not limits["low"] <= value <= limits["high"]:
        return False
    return limits["above"] is None or np.float32(value) > limits["above"]


def sample(
    logits_BV: jax.Array, seen_BV: jax.Array, keys_B: jax.Array, sampling: Sampling
) -> jax.Array:
    """One token for each row.

    Args:
      logits_BV: float32, finite.
      seen_BV: bool, tokens of the prompt or written since.
      keys_B: random keys, each row's own; unused at temperature 0.
      sampling: Python numbers or scalars of a compiled function.

    Returns:
      int32 [B].

    Source: see Sampling; the draw is Gumbel's (jax.random.categorical).
    """
    penalty = sampling.repetition_penalty
    penalised_BV = jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    logits_BV = jnp.where(seen_BV, penalised_BV, logits_BV)

    def likeliest():
        return _likeliest(logits_BV)

    def drawn():
        kept_BV = filtered(logits_BV, sampling)
        tokens_B = jax.vmap(jax.random.categorical)(keys_B, kept_BV)
        return tokens_B.astype(jnp.int32)

    return jax.lax.cond(sampling.temperature == 0, likeliest, drawn)


def _likeliest(logits_BV: jax.Array) -> jax.Array:
    """jnp.argmax as two plain reductions: XLA's own takes twice as long on a CPU."""
    ids_BV = jax.lax.broadcasted_iota(jnp.int32, logits_BV.shape, 1)
    largest_BV = logits_BV == jnp.max(logits_BV, axis=1, keepdims=True)
    return jnp.min(jnp.where(largest_BV, ids_BV, logits_BV.shape[1] - 1), axis=1)


def filtered(logits_BV: jax.Array, sampling: Sampling) -> jax.Array:
    """Logits divided by a temperature above 0, and -inf where a filter took a token."""
    # Less their largest first: no temperature, however small, overflows.
    x_BV = logits_BV - jnp.max(logits_BV, axis=1, keepdims=True)
    x_BV = x_BV / sampling.temperature

    def few(x_BV):
        return _keep_top(x_BV, jnp.ones_like(x_BV), sampling.top_k)

    def nucleus(x_BV):
        return _keep_top(x_BV, jax.nn.softmax(x_BV, axis=1), sampling.top_p)

    x_BV = jax.lax.cond(sampling.top_k > 0, few, lambda x: x, x_BV)
    x_BV = jax.lax.cond(sampling.top_p < 1, nucleus, lambda x: x, x_BV)
    p_BV = jax.nn.softmax(x_BV, axis=1)
    least_BV = sampling.min_p * jnp.max(p_BV, axis=1, keepdims=True)
    return jnp.where(p_BV >= least_BV, x_BV, -jnp.inf)


def _keep_top(x_BV: jax.Array, weight_BV: jax.Array, wanted: float) -> jax.Array:
    """x where it is among the largest whose weights together reach `wanted`.

    The threshold is found bit by bit: the largest rank above which, itself included,
    the weights suffice. On a CPU, 32 sums take a twentieth of one sort.
    """
    rank_BV = _ranks(x_BV)

    def bit(i, threshold_B):
        last = jnp.uint32(_RANK_BITS - 1)
        raised_B = threshold_B | (jnp.uint32(1) << (last - i.astype(jnp.uint32)))
        above_BV = rank_BV >= raised_B[:, None]
        reached_B = jnp.sum(jnp.where(above_BV, weight_BV, 0), axis=1)
        return jnp.where(reached_B >= wanted, raised_B, threshold_B)

    threshold_B = jnp.zeros(x_BV.shape[0], jnp.uint32)
    threshold_B = jax.lax.fori_loop(0, _RANK_BITS, bit, threshold_B)
    return jnp.where(rank_BV >= threshold_B[:, None], x_BV, -jnp.inf)


def _ranks(x_BV: jax.Array) -> jax.Array:
    """uint32 in the order of float32: the bits, those of negative numbers turned."""
    bits_BV = jax.lax.bitcast_convert_type(x_BV, jnp.uint32)
    negative_BV = bits_BV >> (_RANK_BITS - 1) == 1
    return jnp.where(negative_BV, ~bits_BV, bits_BV | jnp.uint32(1 << 31))
