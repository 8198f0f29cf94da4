"""One layer: x += attention(norm(x)); x += feed_forward(norm(x)).

Every product, block output, key and value passes through adapter(path, x, y), if one
is given; without, nothing is added to the program. Output projections start at zero,
so that a fresh layer is the identity.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from tljax.model import attention
from tljax.model.product import product
from tljax.settings import ModelSettings

Adapter = Callable[[str, jax.Array, jax.Array], jax.Array]

_normal = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def rms_norm(x: jax.Array, scale: jax.Array | None = None) -> jax.Array:
    """x / sqrt(mean(x^2)) x scale, over the last axis (Zhang & Sennrich 2019)."""
    wide = x.astype(jnp.float32)
    wide *= jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + 1e-6)
    if scale is not None:
        wide *= scale.reshape((1,) * (x.ndim - 1) + scale.shape)
    return wide.astype(x.dtype)


class Linear(nn.Module):
    """y = x kernel (+ bias)."""

    width: int
    bias: bool
    zero: bool = False

    @nn.compact
    def __call__(self, x_BLD: jax.Array, path: str, adapter: Adapter | None):
        depth = x_BLD.shape[-1]
        init = nn.initializers.zeros_init() if self.zero else _normal
        kernel = self.param("kernel", init, (depth, self.width))
        y_NF = product(x_BLD.reshape(-1, depth), kernel.astype(x_BLD.dtype))
        y_BLF = y_NF.reshape(*x_BLD.shape[:-1], self.width)
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
            y_BLF += bias.astype(y_BLF.dtype)[None, None]
        path = f"{path}/{self.name}"
        return adapter(path, x_BLD, y_BLF) if adapter else y_BLF


class Norm(nn.Module):
    """RMSNorm with a learned scale."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        ones = nn.initializers.ones_init()
        return rms_norm(x, self.param("scale", ones, (x.shape[-1],)))


class Attention(nn.Module):
    """Mixes positions of the same segment."""

    settings: ModelSettings

    @nn.compact
    def __call__(self, x_BLD, segments_BL, path, adapter):
        s = self.settings
        width = s.width // s.heads
        sizes = {"query": s.heads, "key": s.kv_heads, "value": s.kv_heads}
        q, k, v = (
            Linear(heads * width, s.bias, name=name)(x_BLD, path, adapter).reshape(
                *x_BLD.shape[:2], heads, width
            )
            for name, heads in sizes.items()
        )
        if s.qk_norm:
            q, k = Norm(name="query_norm")(q), Norm(name="key_norm")(k)
        q, k = attention.rotate(q, s.rope_base), attention.rotate(k, s.rope_base)
        mixed = attention.attend(q, k, v, segments_BL, causal=s.causal)
        out = Linear(s.width, s.bias, zero=True, name="output")
        return out(mixed.reshape(x_BLD.shape), path, adapter)


class FeedForward(nn.Module):
    """Mixes channels of one position."""

    settings: ModelSettings

    @nn.compact
    def __call__(self, x_BLD, segments_BL, path, adapter):
        s = self.settings
        inner_BLF = Linear(s.mlp_width, s.bias, name="up")(x_BLD, path, adapter)
        if s.mlp == "swiglu":
            gate = Linear(s.mlp_width, s.bias, name="gate")
            inner_BLF *= jax.nn.silu(gate(x_BLD, path, adapter))
        elif s.mlp == "gelu":
            inner_BLF = jax.nn.gelu(inner_BLF)
        else:
            inner_BLF = jnp.square(jax.nn.relu(inner_BLF))
        out = Linear(s.width, s.bias, zero=True, name="down")
        return out(inner_BLF, path, adapter)


class Block(nn.Module):
    """A pre-norm layer of the settings' kind."""

    settings: ModelSettings

    @nn.compact
    def __call__(
        self,
        x_BLD: jax.Array,
        segments_BL: jax.Array,
        dropout_key: jax.Array | None = None,
        path: str = "",
        adapter: Adapter | None = None,
    ) -> jax.Array:
        """Returns the residual stream after this layer; shapes and dtype of x kept."""
        rate = self.settings.dropout
        for name, kind in (("attention", Attention), ("mlp", FeedForward)):
            mix = kind(self.settings, name=name)
            normed_BLD = Norm(name=f"{name}_norm")(x_BLD)
            y_BLD = mix(normed_BLD, segments_BL, f"{path}/{name}", adapter)
            if adapter:
                y_BLD = adapter(f"{path}/{name}", x_BLD, y_BLD)
            if dropout_key is not None:
                dropout_key, key = jax.random.split(dropout_key)
                kept = jax.random.bernoulli(key, 1 - rate, y_BLD.shape)
                y_BLD = jnp.where(kept, y_BLD / (1 - rate), 0)
            x_BLD += y_BLD
        return x_BLD
