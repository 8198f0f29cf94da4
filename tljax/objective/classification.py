"""Classification: sum over items of -weight x log softmax(logits)[label]."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tljax.model import heads, transformer
from tljax.model.block import Adapter
from tljax.settings import ModelSettings, TransferSettings
from tljax.transfer.method import compose, untouched_layers


def logits(
    settings: ModelSettings,
    pooling: str,
    params: dict,
    batch: dict,
    dropout_key: jax.Array | None = None,
    *,
    adapter: Adapter | None = None,
    below: int = 0,
) -> jax.Array:
    """Class logits [B, M, C] of a batch of packed rows, float32.

    The arguments are those of `transformer.apply`; params["head"] is the classifier.
    """
    states_BLD = transformer.apply(
        settings, params, batch, adapter=adapter, dropout_key=dropout_key, below=below
    )
    slots = batch["labels_BM"].shape[1]
    pooled_BMD = heads.pool(states_BLD, batch["segments_BL"], slots, pooling)
    return heads.classify(params["head"], pooled_BMD)


def labelled_loss(
    settings: ModelSettings, pooling: str, transfer: TransferSettings
) -> Callable:
    """Returns loss(moving, batch, key) -> (nats, {"weight", "correct"}).

    batch["frozen"] is what does not move; batch["stream_BLD"], where the bottom is
    frozen, what it computes.
    """
    below = untouched_layers(settings, transfer)

    def loss(moving, batch, key):
        params, adapter = compose(moving, batch["frozen"], transfer, key)
        logits_BMC = logits(
            settings, pooling, params, batch, key, adapter=adapter, below=below
        )
        labels_BM, weights_BM = batch["labels_BM"], batch["weights_BM"]
        nats, weight = classification_loss(logits_BMC, labels_BM, weights_BM)
        right_BM = logits_BMC.argmax(axis=-1) == labels_BM
        return nats, {"weight": weight, "correct": (weights_BM * right_BM).sum()}

    return loss


def gather(flat: jax.Array, gather_BL: jax.Array) -> jax.Array:
    """flat[gather_BL], 0 (padding) where gather is -1.

    Args:
      flat: tokens [I], or what stands for each of them, [I, D].
      gather_BL: int32 places in flat.
    """
    found = flat[jnp.maximum(gather_BL, 0)]
    there = (gather_BL >= 0).reshape(*gather_BL.shape, *(1,) * (found.ndim - 2))
    return jnp.where(there, found, 0)


def classification_loss(
    logits_BMC: jax.Array, labels_BM: jax.Array, weights_BM: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Loss of the real items in the slots of packed rows.

    Args:
      logits_BMC: float32.
      labels_BM: int32 class indices; anything where the weight is 0.
      weights_BM: float32, 0 in empty slots.

    Returns:
      (sum of nats, sum of weights), both float32.
    """
    log_p_BMC = jax.nn.log_softmax(logits_BMC, axis=-1)
    labels_BM1 = jnp.maximum(labels_BM, 0)[..., None]
    nats_BM = -jnp.take_along_axis(log_p_BMC, labels_BM1, axis=-1)[..., 0]
    return (weights_BM * nats_BM).sum(), weights_BM.sum()
