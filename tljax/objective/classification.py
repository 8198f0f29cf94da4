"""Classification: sum over items of -weight x log softmax(logits)[label]."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from tljax.model import heads, transformer
from tljax.model.block import Adapter
from tljax.objective import importance
from tljax.objective import regularize as extra
from tljax.objective.next_token import next_token_loss
from tljax.settings import (
    UNREGULARIZED,
    ModelSettings,
    RegularizeSettings,
    TransferSettings,
)
from tljax.transfer.method import compose, untouched_layers
from tljax.transfer.start import mixout


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
    read_BM = _read_places(pooling, UNREGULARIZED, batch)
    states = transformer.apply(
        settings, params, batch, adapter=adapter, dropout_key=dropout_key, below=below,
        read_BM=read_BM,
    )  # fmt: skip
    return _classify(pooling, params, states, batch, read=read_BM is not None)


def reads_one_token(pooling: str, regularize: RegularizeSettings) -> bool:
    """Whether of each item one token's state is read; lm_weight wants all of them."""
    return pooling in heads.ONE_TOKEN and not regularize.lm_weight


def _read_places(pooling, regularize, batch):
    """Where these tokens stand, [B, M]; None where all states are read."""
    if not reads_one_token(pooling, regularize):
        return None
    slots = batch["labels_BM"].shape[1]
    return heads.places(batch["segments_BL"], slots, pooling)


def _classify(pooling, params, states, batch, *, read):
    """Logits of the states of whole rows, or of those read at the pooling's places."""
    segments_BL, slots = batch["segments_BL"], batch["labels_BM"].shape[1]
    if read:
        pooled_BMD = heads.of_slots(states, segments_BL)
    else:
        pooled_BMD = heads.pool(states, segments_BL, slots, pooling)
    return heads.classify(params["head"], pooled_BMD)


def labelled_loss(
    settings: ModelSettings,
    pooling: str,
    transfer: TransferSettings,
    regularize: RegularizeSettings = UNREGULARIZED,
) -> Callable:
    """Returns loss(moving, batch, key) -> (nats, {"weight", "correct"}).

    batch["frozen"] is what does not move; batch["stream_BLD"], where the bottom is
    frozen, what it computes. What `regularize` switches on reads its strength in
    batch["hparams"], mixout and EWC the first weights in batch["start"], EWC their
    importance in batch["fisher"], and replay rows of other text in batch["replay"], of
    which every replay_every-th batch["step"] draws:

        nats = sum over items of -log p(label) + lm_weight x mean over words of -log p

    (GPT-1, Radford et al. 2018, equation 5, with means as in the authors' code), and
    with R-Drop the mean of two passes + rdrop / 2 x their divergence: half of Wu et al.
    2021, equation 4, so that the loss stays that of an item.
    """
    below = untouched_layers(settings, transfer)

    def one_pass(moving, batch, key):
        hparams = batch.get("hparams", {})
        if regularize.mixout:
            moving = mixout(moving, batch["start"], hparams["mixout"], key)
        params, adapter = compose(moving, batch["frozen"], transfer, key, hparams)
        if regularize.neftune:
            noise_BLD = extra.embedding_noise(
                batch["segments_BL"], settings.width, hparams["neftune"],
                jax.random.fold_in(key, extra.NOISE),
            )  # fmt: skip
            batch = {**batch, "noise_BLD": noise_BLD}
        read_BM = _read_places(pooling, regularize, batch)
        states = transformer.apply(
            settings, params, batch, adapter=adapter, dropout_key=key, below=below,
            kept_share=hparams.get("kept_share"), read_BM=read_BM,
        )  # fmt: skip
        read = read_BM is not None
        logits_BMC = _classify(pooling, params, states, batch, read=read)
        nats, weight = classification_loss(
            logits_BMC, batch["labels_BM"], batch["weights_BM"],
            hparams["label_smoothing"] if regularize.label_smoothing else None,
        )  # fmt: skip
        if regularize.lm_weight:
            targets_BL = extra.next_words(batch["tokens_BL"], batch["segments_BL"])
            nats_a_word = _mean_nats(params, states, targets_BL)
            nats += hparams["lm_weight"] * weight * nats_a_word
        return logits_BMC, nats, weight

    def replayed(moving, batch, key):
        hparams = batch["hparams"]
        params, adapter = compose(moving, batch["frozen"], transfer, key, hparams)

        def nats_a_word():
            rows = batch["segments_BL"].shape[0]
            text = extra.drawn_rows(batch["replay"], rows, key)
            states_BLD = transformer.apply(
                settings, params, text, adapter=adapter, dropout_key=key,
                kept_share=hparams["kept_share"],
            )  # fmt: skip
            return _mean_nats(params, states_BLD, text["targets_BL"])

        due = batch["step"] % regularize.replay_every == 0
        return jax.lax.cond(due, nats_a_word, lambda: jnp.float32(0.0))

    def loss(moving, batch, key):
        labels_BM, weights_BM = batch["labels_BM"], batch["weights_BM"]
        logits_BMC, nats, weight = one_pass(moving, batch, key)
        if regularize.rdrop:
            own = jax.random.fold_in(key, extra.SECOND_PASS)
            again_BMC, more, _ = one_pass(moving, batch, own)
            apart = (weights_BM * extra.divergence(logits_BMC, again_BMC)).sum()
            nats = (nats + more + batch["hparams"]["rdrop"] * apart) / 2
        if regularize.replay:
            share = batch["hparams"]["replay"] * weight
            nats += share * replayed(moving, batch, key)
        if regularize.ewc:
            lost = importance.penalty(moving, batch["start"], batch["fisher"])
            nats += batch["hparams"]["ewc"] * weight * lost
        right_BM = logits_BMC.argmax(axis=-1) == labels_BM
        return nats, {"weight": weight, "correct": (weights_BM * right_BM).sum()}

    return loss


def _mean_nats(params, states_BLD, targets_BL):
    output_VD = transformer.output_matrix(params)
    nats, words = next_token_loss(states_BLD, output_VD, targets_BL)
    return nats / jnp.maximum(words, 1.0)


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
    logits_BMC: jax.Array,
    labels_BM: jax.Array,
    weights_BM: jax.Array,
    smoothing: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Loss of the real items in the slots of packed rows.

    Args:
      logits_BMC: float32.
      labels_BM: int32 class indices; anything where the weight is 0.
      weights_BM: float32, 0 in empty slots.
      smoothing: share of each label spread over all C classes, its own included; None =
        nothing is. Source: Szegedy et al. 2016, section 7.

    Returns:
      (sum of nats, sum of weights), both float32.
    """
    if smoothing is not None:
        sure_BMC = jax.nn.one_hot(labels_BM, logits_BMC.shape[-1])
        wanted_BMC = optax.smooth_labels(sure_BMC, smoothing)
        nats_BM = optax.softmax_cross_entropy(logits_BMC, wanted_BMC)
        return (weights_BM * nats_BM).sum(), weights_BM.sum()
    log_p_BMC = jax.nn.log_softmax(logits_BMC, axis=-1)
    labels_BM1 = jnp.maximum(labels_BM, 0)[..., None]
    nats_BM = -jnp.take_along_axis(log_p_BMC, labels_BM1, axis=-1)[..., 0]
    return (weights_BM * nats_BM).sum(), weights_BM.sum()
