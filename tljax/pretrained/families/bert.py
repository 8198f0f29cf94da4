"""BERT, an encoder: norms after the sum, learned positions, token types.

    x = norm(words + positions + types);  every token sees every other

Its heads (pooler, masked words) are not read; a BERT made a decoder is refused.
"""

from typing import Any

from tljax.pretrained.families.family import (
    LAYER,
    Config,
    Family,
    Place,
    linear,
    norm,
    only,
)
from tljax.settings import ModelSettings

_THEIRS = "encoder.layer.{i}"
_NAMES = {
    "embedding/tokens": Place("embeddings.word_embeddings.weight"),
    "embedding/positions": Place("embeddings.position_embeddings.weight"),
    "embedding/types": Place("embeddings.token_type_embeddings.weight"),
    **norm("embedding_norm", "embeddings.LayerNorm"),
    **norm(f"{LAYER}/attention_norm", f"{_THEIRS}.attention.output.LayerNorm"),
    **norm(f"{LAYER}/mlp_norm", f"{_THEIRS}.output.LayerNorm"),
    **linear(f"{LAYER}/attention/query", f"{_THEIRS}.attention.self.query"),
    **linear(f"{LAYER}/attention/key", f"{_THEIRS}.attention.self.key"),
    **linear(f"{LAYER}/attention/value", f"{_THEIRS}.attention.self.value"),
    **linear(f"{LAYER}/attention/output", f"{_THEIRS}.attention.output.dense"),
    **linear(f"{LAYER}/mlp/up", f"{_THEIRS}.intermediate.dense"),
    **linear(f"{LAYER}/mlp/down", f"{_THEIRS}.output.dense"),
}


def _bert(config: Config) -> dict[str, Any]:
    only(config, "hidden_act", "gelu", default="gelu")
    only(config, "position_embedding_type", "absolute", default="absolute")
    for key in ("is_decoder", "add_cross_attention"):
        only(config, key, False, default=False)
    heads = config["num_attention_heads"]
    return {
        "width": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "heads": heads,
        "kv_heads": heads,
        "mlp": "gelu_exact",
        "mlp_width": config["intermediate_size"],
        "qk_norm": False,
        "bias": "all",
        "tied": True,
        "causal": False,
        "rope_base": 1.0,
        "norm": "layer",
        "norm_place": "after",
        "norm_epsilon": config.get("layer_norm_eps", 1e-12),
        "positions": "learned",
        "context": config["max_position_embeddings"],
        "embedding_norm": True,
        "token_types": config.get("type_vocab_size", 2),
    }


def _bert_config(s: ModelSettings) -> dict[str, Any]:
    return {
        "hidden_size": s.width,
        "num_hidden_layers": s.depth,
        "num_attention_heads": s.heads,
        "intermediate_size": s.mlp_width,
        "hidden_act": "gelu",
        "layer_norm_eps": s.norm_epsilon,
        "max_position_embeddings": s.context,
        "type_vocab_size": s.token_types,
    }


BERT = Family(
    "bert",
    "BertModel",
    "bert.",
    _NAMES,
    (r"embeddings\.position_ids", r"pooler\..*", r"cls\..*"),
    _bert,
    _bert_config,
)
