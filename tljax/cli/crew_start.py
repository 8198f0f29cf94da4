"""What the members of a fine-tuning population begin with.

source -> base -> frozen: what does not move, on the device once for all
               -> first_params: what moves, with a member's own fresh parameters
"""

import functools
import re

import jax

from tljax.cli import parts
from tljax.cli.crew_data import CrewData
from tljax.cli.models import embedding_rows, load_source_params
from tljax.evaluate.features import pooled_features
from tljax.evaluate.probe import fit_probe
from tljax.model import heads, transformer
from tljax.settings import FinetuneSettings, InputError, TransferSettings
from tljax.train.checkpoint import params_sha256
from tljax.transfer.method import compose, split, untouched_layers
from tljax.transfer.transplant import flat, nested, transplant


class CrewStart:
    """The base, loaded once, and each member's first parameters.

    Attributes:
      base: the source's parameters where they lie, without what is fresh; {} without.
      facts: what the manifest says of them; None without.
      frozen: those that no member moves; {} where all moves.
    """

    def __init__(self, settings: FinetuneSettings, data: CrewData):
        self.settings, self.data = settings, data
        self._jit_init = parts.jit_for_one_call(self._init)
        self._loaded = None
        if settings.init.source:
            self._loaded = load_source_params(settings.init.source, settings.model)
        self.base, self.facts = self._transplant()
        self.frozen = self._freeze()

    def _init(self, key: jax.Array) -> dict:
        """Fresh parameters, those of the head by a key of their own.

        All of them from scratch; with a source only what `_fresh` names.
        """
        model, init = self.settings.model, self.settings.init
        params = {}
        if not init.source or init.reinit_layers:
            params = transformer.init_params(model, self.data.tokenizer.vocab_size, key)
            params.pop("output", None)
        if init.source:
            params = nested(
                {
                    path: leaf
                    for path, leaf in flat(params).items()
                    if any(re.fullmatch(pattern, path) for pattern in self._fresh())
                }
            )
        head_key = jax.random.fold_in(key, 1)
        classes = len(self.data.classes)
        params["head"] = heads.init_classifier(model.width, classes, head_key)
        return params

    def _fresh(self) -> list[str]:
        """Patterns of the leaves that the source does not give.

        The top layers and the final norm, their layer norm, are drawn anew as Zhang et
        al. 2021, section 5, do; the head always is.
        """
        model, anew = self.settings.model, self.settings.init.reinit_layers
        tops = [rf"layers/{model.depth - 1 - i}/.*" for i in range(anew)]
        norm = ["final_norm/.*"] if anew and model.norm_place != "after" else []
        return ["head/.*", *tops, *norm]

    def _transplant(self) -> tuple[dict, dict | None]:
        """The base's parameters in their places, without what is fresh; the facts."""
        if not self.settings.init.source:
            return {}, None
        rows = embedding_rows(self.settings.init.source, self.data.tokenizer)
        key = jax.random.key(0)
        target = jax.eval_shape(
            lambda key: (
                transformer.init_params(self.settings.model, rows, key)
                | {"head": self._init(key)["head"]}
            ),
            key,
        )
        target.pop("output", None)
        left = [f"{name}/.*" for name in ("output", "head") if name in self._loaded]
        params, ledger = transplant(
            self._loaded, target, fresh=self._fresh(), left=left
        )
        leaves = flat(params)
        copied = [entry.path for entry in ledger if entry.what == "copied"]
        params = nested({path: leaves[path] for path in copied})
        sha256 = params_sha256(self._loaded)
        source = self.settings.init.source
        return params, parts.ledger_facts(source, ledger, sha256)

    def _freeze(self) -> dict:
        """What no member moves, once and on the device; {} where all moves."""
        settings = self.settings.transfer
        if settings == TransferSettings():
            return {}
        start = {**self.base, "head": {}}
        frozen = jax.device_put(split(start, settings, jax.random.key(0))[1])
        self.base = nested({**flat(self.base), **flat(frozen)})
        self._loaded = None  # its copy on the host is not needed any more
        return frozen

    def first_params(self, settings: FinetuneSettings) -> dict:
        """What a member moves, before its first step."""
        params = self.beginning(settings)
        if settings.head.start == "probe":
            params["head"] = self._probe(params, settings)
        adapter_key = jax.random.fold_in(jax.random.key(settings.streams.init), 2)
        return split(params, settings.transfer, adapter_key)[0]

    def beginning(self, settings: FinetuneSettings) -> dict:
        """The source's parameters with a member's own fresh ones: the whole tree."""
        return self._with_base(self._jit_init(jax.random.key(settings.streams.init)))

    def shapes(self) -> dict:
        """Of `beginning`."""
        return jax.eval_shape(lambda: self._with_base(self._init(jax.random.key(0))))

    def _with_base(self, fresh: dict) -> dict:
        return nested({**flat(self.base), **flat(fresh)})

    def _probe(self, params: dict, settings: FinetuneSettings) -> dict:
        """The head that is the ridge probe on a member's own labelled items.

        Ridge and temperature are the probe's, by left-one-out likelihood, so that the
        first logits are as sure as the features allow.

        Source: LP-FT, Kumar et al. 2022, section 3: v = argmin ||B0 x v - y||^2 of the
        frozen features B0 x, then all of (v, B0) moves. In their experiments the probe
        is a logistic regression.
        """
        chosen = self.data.learned(settings)
        if len(chosen) < 2:
            raise InputError(
                "config.head.start='probe' needs two labelled items; config.task.n is"
                f" {settings.task.n}"
            )
        pooling = settings.head.pooling
        features_ID = pooled_features(
            settings.model, params, chosen.tokens, poolings=(pooling,)
        )[:, 0, 0]
        return fit_probe(
            features_ID, chosen.labels, len(self.data.classes)
        ).as_classifier()

    def whole(self, moving: dict) -> dict:
        """A member's parameters with those that did not move."""
        return compose(moving, self.frozen, self.settings.transfer).params

    @functools.cached_property
    def first_weights(self) -> dict:
        """What moves as the base has it, without the head; on the device."""
        start = {**self.base, "head": {}}
        moving, _ = split(start, self.settings.transfer, jax.random.key(0))
        return jax.device_put(moving)

    @property
    def frozen_above(self) -> dict:
        """The frozen layers that gradients pass through."""
        first = untouched_layers(self.settings.model, self.settings.transfer)
        layers = self.frozen.get("layers", {})
        return {"layers": {i: one for i, one in layers.items() if int(i) >= first}}
