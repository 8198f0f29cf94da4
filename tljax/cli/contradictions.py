"""Settings that contradict each other: told in one line, before anything is compiled.

    config.regularize.mixout=0.9 + config.transfer.method='lora' -> InputError

What concerns one group of settings alone its own `check` says (tljax/settings.py).
"""

import functools

import jax

from tljax.model import transformer
from tljax.settings import (
    UNREGULARIZED,
    WEIGHT_METHODS,
    FinetuneSettings,
    InputError,
    ModelSettings,
    TransferSettings,
)
from tljax.transfer.method import prompt_places, split


def check(settings: FinetuneSettings) -> None:
    """Raises InputError for values that cannot go together."""
    transformer.check(settings.model)
    if settings.transfer != TransferSettings() and not settings.init.source:
        raise InputError(
            "config.transfer freezes weights, but config.init.source is empty: what"
            " would stay is untrained; give a source or leave config.transfer out"
        )
    if settings.transfer != TransferSettings():
        _moving(settings.model, settings.transfer)
        _check_prompt(settings)
    _check_regularize(settings)
    _check_start(settings)
    _check_optim(settings)
    if settings.epochs == 0:
        raise InputError("config.epochs is 0; it must be more than 0")
    if settings.model.causal and settings.head.pooling == "cls":
        raise InputError(
            "config.head.pooling='cls' takes the first token's state, which sees no"
            " other where config.model.causal=True; take last, mean or max"
        )
    context = settings.model.context
    if settings.model.positions == "learned" and settings.task.length > context:
        raise InputError(
            f"config.task.length={settings.task.length}, but the model has {context}"
            f" positions; set it to at most {context}"
        )
    mesh = settings.mesh
    if mesh.data * mesh.fsdp * mesh.tensor > 1:
        raise InputError(
            f"config.mesh has data={mesh.data}, fsdp={mesh.fsdp}, tensor={mesh.tensor};"
            " a fine-tuning run is trained on one device, and run alone spreads runs:"
            " set data=1, fsdp=1 and tensor=1"
        )


@functools.cache
def _moving(model: ModelSettings, transfer: TransferSettings) -> dict:
    """The shapes of what moves.

    Raises:
      InputError: more layers are frozen than there are, or targets match nothing.
    """

    def moving(key):
        params = transformer.init_params(model, 1, key)
        return split({**params, "head": {}}, transfer, key)[0]

    return jax.eval_shape(moving, jax.random.key(0))


def _check_prompt(settings: FinetuneSettings) -> None:
    """Refuses a prompt that leaves a text no room, or that would stand for it."""
    places, length = prompt_places(settings.transfer), settings.task.length
    if places >= length:
        raise InputError(
            f"config.transfer.prompt_length={places} leaves no token of"
            f" config.task.length={length} to the text; take a longer one"
        )
    if places and settings.head.pooling == "cls":
        raise InputError(
            "config.head.pooling='cls' takes the first token's state, which with"
            " config.transfer.method='prompt' is the prompt's; take mean, last or max"
        )


def _check_regularize(settings: FinetuneSettings) -> None:
    """Refuses what this run would never read, or cannot compute."""
    regularize, transfer = settings.regularize, settings.transfer
    model, source = settings.model, settings.init.source
    frozen = model.depth if transfer.method == "head" else transfer.frozen_layers

    def refuse(name: str, reason: str) -> None:
        if getattr(regularize, name) != getattr(UNREGULARIZED, name):
            raise InputError(
                f"config.regularize.{name}={getattr(regularize, name)}: {reason}"
            )

    for name in ("l2_start", "mixout", "ewc", "wise"):
        if not source:
            refuse(name, "config.init.source is empty: no weights to stay near")
        if transfer.method not in WEIGHT_METHODS:
            refuse(
                name,
                f"with config.transfer.method={transfer.method!r} the weights stay"
                " as they began; leave it out",
            )
    if frozen >= model.depth:
        refuse("mixout", "every layer is frozen; leave it out")
    if transfer.method != "full" and not _moves_a_matrix(model, transfer):
        refuse(
            "mixout",
            f"it acts on matrices, and config.transfer.method={transfer.method!r}"
            " moves none; leave it out",
        )
    drawn = model.dropout or transfer.dropout or regularize.mixout or regularize.neftune
    if frozen >= model.depth or not drawn:
        refuse(
            "rdrop",
            "both passes would be one: no layer that moves has dropout; set"
            " config.model.dropout, e.g. to 0.1",
        )
    if transfer.method == "prompt":
        for name in ("lm_weight", "replay"):
            refuse(
                name,
                "the places of config.transfer.method='prompt' would be taken for"
                " words; leave it out, or take 'prefix'",
            )
    for name in ("neftune", "lm_weight", "replay"):
        if frozen:
            refuse(
                name,
                "the frozen layers' output takes the tokens' place; leave it out or"
                " freeze no layer",
            )
    for name in ("lm_weight", "replay", "ewc"):
        if not model.causal:
            refuse(name, "config.model.causal=False: it sees the next word")
        if not model.tied:
            refuse(
                name,
                "config.model.tied=False: fine-tuning keeps no output matrix",
            )


def _moves_a_matrix(model: ModelSettings, transfer: TransferSettings) -> bool:
    layers = _moving(model, transfer).get("layers", {})
    return any(leaf.ndim == 2 for leaf in jax.tree.leaves(layers))


def _check_start(settings: FinetuneSettings) -> None:
    """Refuses fresh layers that are not there or would stay; a probe of nothing."""
    anew, depth = settings.init.reinit_layers, settings.model.depth
    if settings.head.start == "probe" and not settings.init.source:
        raise InputError(
            "config.head.start='probe' fits features of a pre-trained model, but"
            " config.init.source is empty; give a source, or take 'random'"
        )
    if settings.head.start == "probe" and settings.transfer.method in (
        "prompt",
        "prefix",
    ):
        raise InputError(
            "config.head.start='probe' fits features of texts without the vectors that"
            f" config.transfer.method={settings.transfer.method!r} puts before them;"
            " take 'random'"
        )
    if not anew:
        return
    if not settings.init.source:
        raise InputError(
            f"config.init.reinit_layers={anew}, but config.init.source is empty: every"
            " layer is drawn anew; leave it out"
        )
    if settings.transfer.method != "full":
        raise InputError(
            f"config.init.reinit_layers={anew} draws layers anew that would then stay"
            f" untrained with config.transfer.method={settings.transfer.method!r};"
            " take 'full'"
        )
    if settings.regularize.ewc:
        raise InputError(
            f"config.regularize.ewc={settings.regularize.ewc} weighs what the model has"
            f" learnt, but config.init.reinit_layers={anew} draws layers anew; take one"
        )
    if anew + settings.transfer.frozen_layers > depth:
        raise InputError(
            f"config.init.reinit_layers={anew} with config.transfer.frozen_layers="
            f"{settings.transfer.frozen_layers}, but the model has {depth} layers"
        )


def _check_optim(settings: FinetuneSettings) -> None:
    """Refuses what would move, or be slowed, where there is nothing of the kind."""
    optim, method = settings.optim, settings.transfer.method
    if optim.lora_plus != 1 and method not in ("lora", "dora"):
        raise InputError(
            f"config.optim.lora_plus={optim.lora_plus} is read with"
            f" config.transfer.method='lora' or 'dora' only; the method is {method!r}"
        )
    if optim.unfreeze == "none":
        return
    if not settings.init.source:
        raise InputError(
            f"config.optim.unfreeze={optim.unfreeze!r} keeps layers as they are for a"
            " while, but config.init.source is empty: they are untrained; give a source"
        )
    if method == "head":
        raise InputError(
            f"config.optim.unfreeze={optim.unfreeze!r}, but with"
            " config.transfer.method='head' no layer ever moves; leave it out"
        )
