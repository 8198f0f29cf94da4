"""One layer: x += attention(norm(x)); x += feed_forward(norm(x)).

With norm_place 'after' x = norm(x + branch(x)), with 'both' x += norm(branch(norm(x))).
Every product, block output, key and value passes through adapter(path, x, y), if one
is given, and it may put keys and values before the row's own (path '.../prefix');
without, nothing is added to the program. Output projections start at zero,
so that a fresh layer is the identity.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from tljax.model import attention
from tljax.model.product import product, read_once, unshared, weighted_sum
from tljax.settings import ModelSettings

Adapter = Callable[[str, jax.Array, jax.Array], jax.Array]

_normal = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class Look(NamedTuple):
    """How a layer's positions look at each other.

    Attributes:
      reach: causal or not, window, scale.
      mix: mix(q_BQHE, k_BKHE, v_BKHE) -> mixed values [B, Q, H, E].
      positions_BL: of the rotary angles; None = places in the row.
      places_BL: in the segment: the angles where keys stand before the row, since these
        are turned by none and every segment must see them alike.
      read_BM: places in the row that the layer is computed for, from the keys and
        values of all; None = for all. `mix` then takes the queries of these.
    """

    reach: attention.Reach
    mix: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    positions_BL: jax.Array | None = None
    places_BL: jax.Array | None = None
    read_BM: jax.Array | None = None


def read(x_BLD: jax.Array, read_BM: jax.Array) -> jax.Array:
    """x at some places of each row, [B, M, D]."""
    return jnp.take_along_axis(x_BLD, read_BM[..., None], axis=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def normalize(settings: ModelSettings, params: dict, x: jax.Array) -> jax.Array:
    """(x - mean) / s x scale over the last axis, computed in float32.

    For RMSNorm the mean is 0 and s = sqrt(mean(x^2) + epsilon); LayerNorm takes the
    mean of x, also within s, and adds params["bias"] at the end.
    Source: Zhang & Sennrich 2019, equation 4; Ba et al. 2016.
    """
    return _normalize_forward(settings, params, x)[0]


def _normalize_forward(settings, params, x):
    mean_square = jnp.square(_centred(settings, unshared(x))).mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(mean_square + settings.norm_epsilon)
    wide = _centred(settings, x)
    row = (1,) * (x.ndim - 1) + x.shape[-1:]
    y = wide * inverse * params["scale"].astype(jnp.float32).reshape(row)
    if settings.norm == "layer":
        y += params["bias"].astype(jnp.float32).reshape(row)
    return y.astype(x.dtype), (params, x, inverse)


def _centred(settings, x):
    wide = x.astype(jnp.float32)
    if settings.norm == "layer":
        wide -= jnp.mean(wide, axis=-1, keepdims=True)
    return wide


def _normalize_backward(settings, saved, gradient):
    """With n = (x - mean) / s, and p = g scale of the gradient g:

    dx = (p - n mean(p n) - mean(p)) / s, the last for LayerNorm alone,
    dscale = sum(g n),  dbias = sum(g).

    Both sums with n are of the one product g (x - mean), as `weighted_sum` likes it.
    Of the forward pass nothing is kept but x and 1 / s.
    """
    params, x, inverse = saved
    width = x.shape[-1]
    gradient_ND = gradient.astype(jnp.float32).reshape(-1, width)
    wide_ND = _centred(settings, x).reshape(-1, width)
    inverse_N, scale_D = inverse.reshape(-1), params["scale"].astype(jnp.float32)
    along_ND = gradient_ND * wide_ND
    mean_N = weighted_sum(along_ND, scale_D, axis=1) * inverse_N**2 / width
    pull_ND = gradient_ND * scale_D[None] - wide_ND * mean_N[:, None]
    pulls = {"scale": weighted_sum(along_ND, inverse_N, axis=0)}
    if settings.norm == "layer":
        pull_ND -= weighted_sum(gradient_ND, scale_D, axis=1)[:, None] / width
        pulls["bias"] = weighted_sum(gradient_ND, jnp.ones_like(inverse_N), axis=0)
    pulls = jax.tree.map(lambda pull, leaf: pull.astype(leaf.dtype), pulls, params)
    pull_ND *= inverse_N[:, None]
    return pulls, pull_ND.reshape(x.shape).astype(x.dtype)


normalize.defvjp(_normalize_forward, _normalize_backward)


@functools.partial(jax.checkpoint, static_argnums=0)
def activate(kind: str, x: jax.Array, gate: jax.Array | None) -> jax.Array:
    """act(x), or x act(gate), in float32: bfloat16 steps are slower and worse.

    The backward pass computes it again from x and gate: as fast as keeping the float32
    steps in between, which with those of norms take a third of a step's memory.

    Args:
      kind: as in the settings, `mlp`.
      x: the up projection.
      gate: of 'swiglu' and 'geglu', else None. Source: Shazeer 2020.

    Returns:
      Shape and dtype of x.
    """
    wide = x.astype(jnp.float32)
    if kind == "swiglu":
        # silu(gate) = gate sigmoid(gate); an exponential and a division take longer
        half = 0.5 * gate.astype(jnp.float32)
        wide *= half * jnp.tanh(half) + half
    elif kind == "geglu":
        wide *= jax.nn.gelu(gate.astype(jnp.float32))
    elif kind == "relu2":
        wide = jnp.square(jax.nn.relu(wide))
    else:
        wide = jax.nn.gelu(wide, approximate=kind == "gelu")
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
        x_ND = x_BLD.reshape(-1, depth)
        if self.has_variable("params", "transposed"):  # of `cache.for_extending`
            kernel_FD = self.get_variable("params", "transposed")
            y_NF = read_once(x_ND, kernel_FD.astype(x_ND.dtype))
        else:
            y_NF = product(x_ND, self.param("kernel", init, (depth, self.width)))
        y_BLF = y_NF.reshape(*x_BLD.shape[:-1], self.width)
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
            y_BLF += bias.astype(y_BLF.dtype)[None, None]
        path = f"{path}/{self.name}"
        return adapter(path, x_BLD, y_BLF) if adapter else y_BLF


class Norm(nn.Module):
    """RMSNorm or LayerNorm with learned scale (and bias)."""

    settings: ModelSettings

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = (x.shape[-1],)
        params = {"scale": self.param("scale", nn.initializers.ones_init(), width)}
        if self.settings.norm == "layer":
            params["bias"] = self.param("bias", nn.initializers.zeros_init(), width)
        return normalize(self.settings, params, x)


class Attention(nn.Module):
    """Mixes positions of the same segment."""

    settings: ModelSettings

    @nn.compact
    def __call__(self, x_BLD, path, adapter, look: Look):
        s = self.settings
        width = attention.head_width(s)
        bias = s.bias in ("qkv", "attention", "all")
        read_BM = look.read_BM
        asking_BQD = x_BLD if read_BM is None else read(x_BLD, read_BM)

        def project(name, x, heads):
            y = Linear(heads * width, bias, name=name)(x, path, adapter)
            return y.reshape(*x.shape[:2], heads, width)

        if self.has_variable("params", "qkv"):  # of `cache.for_extending`
            every = project("qkv", x_BLD, s.heads + 2 * s.kv_heads)
            q, k, v = jnp.split(every, [s.heads, s.heads + s.kv_heads], axis=2)
        else:
            q = project("query", asking_BQD, s.heads)
            k, v = (project(name, x_BLD, s.kv_heads) for name in ("key", "value"))
        if s.qk_norm:
            rms = dataclasses.replace(s, norm="rms")
            q, k = Norm(rms, name="query_norm")(q), Norm(rms, name="key_norm")(k)
        before = adapter(f"{path}/prefix", k, None) if adapter else None
        if s.positions == "rotary":
            frequency_E = attention.rotary_frequencies(s, window=look.reach.window)
            places_BL = places_BQ = (
                look.positions_BL if before is None else look.places_BL
            )
            if read_BM is not None:
                places_BQ = read_BM
                if places_BL is not None:
                    places_BQ = jnp.take_along_axis(places_BL, read_BM, axis=1)
            q = attention.rotate(q, frequency_E, places_BQ)
            k = attention.rotate(k, frequency_E, places_BL)
        if before is not None:
            k = jnp.concatenate([before[0], k], axis=1)
            v = jnp.concatenate([before[1], v], axis=1)
        mixed = look.mix(q, k, v)
        bias = s.bias in ("attention", "all")
        out = Linear(s.width, bias, zero=True, name="output")
        return out(mixed.reshape(*asking_BQD.shape[:2], -1), path, adapter)


class FeedForward(nn.Module):
    """Mixes channels of one position."""

    settings: ModelSettings

    @nn.compact
    def __call__(self, x_BLD, path, adapter):
        s = self.settings
        bias = s.bias in ("mlp", "all")
        inner_BLF = Linear(s.mlp_width, bias, name="up")(x_BLD, path, adapter)
        gate_BLF = None
        if s.mlp in ("swiglu", "geglu"):
            gate_BLF = Linear(s.mlp_width, bias, name="gate")(x_BLD, path, adapter)
        out = Linear(s.width, bias, zero=True, name="down")
        return out(activate(s.mlp, inner_BLF, gate_BLF), path, adapter)


class Block(nn.Module):
    """A layer of the settings' kind."""

    settings: ModelSettings

    @nn.compact
    def __call__(
        self,
        x_BLD: jax.Array,
        look: Look,
        dropout_key: jax.Array | None = None,
        path: str = "",
        adapter: Adapter | None = None,
        kept_share: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the residual stream after this layer, in shape and dtype of x.

        Where the look has read_BM, of these places alone: [B, M, D].
        kept_share, a float32 scalar, is 1 - dropout; None = that of the settings.
        """
        s = self.settings
        if kept_share is None:
            kept_share = jnp.float32(1 - s.dropout)
        for name in ("attention", "mlp"):
            taken_BLD = x_BLD
            if s.norm_place != "after":
                taken_BLD = Norm(s, name=f"{name}_norm")(x_BLD)
            if name == "attention":
                mix = Attention(s, name=name)
                y_BLD = mix(taken_BLD, f"{path}/{name}", adapter, look)
                if look.read_BM is not None:
                    x_BLD, taken_BLD = (
                        read(one, look.read_BM) for one in (x_BLD, taken_BLD)
                    )
            else:
                feed = FeedForward(s, name=name)
                y_BLD = feed(taken_BLD, f"{path}/{name}", adapter)
            if s.norm_place == "both":
                y_BLD = Norm(s, name=f"{name}_post_norm")(y_BLD)
            if adapter:
                y_BLD = adapter(f"{path}/{name}", taken_BLD, y_BLD)
            if dropout_key is not None:
                dropout_key, key = jax.random.split(dropout_key)
                kept = jax.random.bernoulli(key, kept_share, y_BLD.shape)
                y_BLD = jnp.where(kept, y_BLD / kept_share.astype(y_BLD.dtype), 0)
            x_BLD += y_BLD
            if s.norm_place == "after":
                x_BLD = Norm(s, name=f"{name}_norm")(x_BLD)
        return x_BLD
