"""How much text depends on each weight: the diagonal of Fisher's information.

F = sum over rows of (d nats of the row / d w)^2 / words
nats a word at w  ~  nats a word at start + 1/2 sum of F x (w - start)^2
"""

import jax
import jax.numpy as jnp

from tljax.objective.next_token import language_loss
from tljax.settings import ModelSettings, TransferSettings
from tljax.transfer.method import compose
from tljax.transfer.transplant import flat


def fisher(
    settings: ModelSettings,
    transfer: TransferSettings,
    start: dict,
    frozen: dict,
    text: dict[str, jax.Array],
) -> dict:
    """The importance of every entry of start for the next words of text.

    Args:
      settings: of the model.
      transfer: what moves.
      start: what moves, before fine-tuning.
      frozen: what does not.
      text: rows of "tokens_BL", "segments_BL", "targets_BL".

    Returns:
      A tree like start, float32, at least 0.

    Source: Kirkpatrick et al. 2017, section 2.1; at the text's own words (the empirical
    Fisher), a row taken as one draw.
    """
    loss = language_loss(settings)

    def nats(moving, row):
        batch = jax.tree.map(lambda leaf: leaf[None], row)
        return loss(compose(moving, frozen, transfer).params, batch, None)[0]

    def add(total, row):
        pulls = jax.grad(nats)(start, row)
        return jax.tree.map(lambda t, pull: t + pull * pull, total, pulls), None

    total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, start), text)
    words = jnp.maximum((text["targets_BL"] >= 0).sum(), 1)
    return jax.tree.map(lambda leaf: leaf / words, total)


def penalty(params: dict, start: dict, importance: dict) -> jax.Array:
    """1/2 sum of importance x (w - start)^2: nats a word that the text has lost.

    Source: Kirkpatrick et al. 2017, equation 3.
    """
    now, began = flat(params), flat(start)
    terms = [
        (leaf * (now[path] - began[path]) ** 2).sum()
        for path, leaf in flat(importance).items()
    ]
    return sum(terms) / 2
