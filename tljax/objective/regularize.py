"""Parts of a loss of labelled texts that are there only while training.

    R-Drop   how far two passes are apart          NEFTune   noise on the embedding
    GPT-1    the texts' own next words             replay    other text's next words

Which are on is compiled in; how strong each is comes with the batch's hparams.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from tljax.settings import ModelSettings, RegularizeSettings

# fold_in numbers that neither a layer nor a path has
SECOND_PASS = 2**31 + 1
NOISE = 2**31 + 2
REPLAY = 2**31 + 3


def hyperparameters(
    settings: RegularizeSettings, model: ModelSettings
) -> dict[str, jax.Array]:
    """The strengths, and the share that dropout keeps, as float32 scalars."""
    strengths = dataclasses.asdict(settings)
    for name in ("wise", "replay_every", "replay_source"):  # no strengths of a step
        del strengths[name]
    numbers = {name: jnp.float32(value) for name, value in strengths.items()}
    return {**numbers, "kept_share": jnp.float32(1 - model.dropout)}


def divergence(one_BMC: jax.Array, other_BMC: jax.Array) -> jax.Array:
    """How far two predictions are apart: (KL(p || q) + KL(q || p)) / 2.

    Args:
      one_BMC: logits.
      other_BMC: logits of a second pass.

    Returns:
      Nats [B, M], float32, at least 0.

    Source: R-Drop, Wu et al. 2021, equation 1.
    """
    log_p_BMC, log_q_BMC = (jax.nn.log_softmax(x, -1) for x in (one_BMC, other_BMC))
    kl = optax.losses.kl_divergence_with_log_targets
    return (kl(log_p_BMC, log_q_BMC) + kl(log_q_BMC, log_p_BMC)) / 2


def embedding_noise(
    segments_BL: jax.Array, width: int, alpha: jax.Array, key: jax.Array
) -> jax.Array:
    """Noise [B, L, D], uniform in +- alpha / sqrt(tokens of the text x D), float32.

    Args:
      segments_BL: int32; each text of a packed row has its own length.
      width: D.
      alpha: float32 scalar.
      key: of the pass.

    Source: NEFTune, Jain et al. 2023, algorithm 1.
    """
    same_BQK = segments_BL[:, :, None] == segments_BL[:, None]
    bound_BL = alpha * jax.lax.rsqrt(same_BQK.sum(axis=-1) * float(width))
    shape = (*segments_BL.shape, width)
    noise_BLD = jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
    return noise_BLD * bound_BL[..., None]


def next_words(tokens_BL: jax.Array, segments_BL: jax.Array) -> jax.Array:
    """Each position's next token in its own text; -1 at a text's end and in padding.

    tokens   5 6 7 8 9 0
    segments 1 1 1 2 2 0   ->   6 7 -1 9 -1 -1
    """
    after_BL, same_BL = (
        jnp.pad(one_BL[:, 1:], ((0, 0), (0, 1))) for one_BL in (tokens_BL, segments_BL)
    )
    inside_BL = (segments_BL == same_BL) & (segments_BL > 0)
    return jnp.where(inside_BL, after_BL, -1)


def drawn_rows(bank: dict[str, jax.Array], rows: int, key: jax.Array) -> dict:
    """A batch of a bank's rows, with repetition: rehearsal (Robins 1995).

    Args:
      bank: arrays of K rows.
      rows: B.
      key: of the step.
    """
    size = jax.tree.leaves(bank)[0].shape[0]
    own = jax.random.fold_in(key, REPLAY)
    rows_B = jax.random.randint(own, (rows,), 0, size)
    return jax.tree.map(lambda leaf: leaf[rows_B], bank)
