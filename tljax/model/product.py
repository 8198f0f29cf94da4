"""Matrix products, laid out so that the processor's fast path takes them.

y_NF = x_ND w_DF; its gradients g w^T and x^T g need transposed operands, which in
bfloat16 on a CPU cost two to six times the plain product. Copying the transpose into
memory first is nearly free, but XLA folds a copy back unless the layout is constrained.
Gradients of weights are long sums, kept in float32 as the weights are. Programs that
oneDNN multiplies in need no copies, and round such sums once (`lower_by_onednn`).
Products of few rows take as long as their weights are read (`jit_by_sums`).
"""

import contextvars
import functools
import os
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

_FEW = 32  # rows of a product that takes as long as its weights are read
_SUMMED = 8  # rows, or heads of shared keys, at most, whose products are sums
_AT_ONCE = 4  # rows in one walk: eight results are in each other's way in caches


@functools.cache
def cuda_capability() -> float:
    """Of the default NVIDIA device, e.g. 9.0 for Hopper; 0 = it is none."""
    device = jax.devices()[0]
    if "cuda" not in device.client.platform_version:
        return 0.0
    return float(device.compute_capability)


@functools.cache
def bfloat16_is_faster(*, few_rows: bool = False) -> bool:
    """Whether the default device multiplies bfloat16 faster than float32.

    Intel's AVX512-BF16 has the rate of float32, less what packing and rounding take:
    it needs AMX, which a virtual machine may hide. With few rows, as in decoding, a
    product takes as long as its weights are read, and half the bytes are what counts.

    Args:
      few_rows: of the products in question.
    """
    if jax.default_backend() != "cpu":
        return not 0 < cuda_capability() < 8  # Ampere was the first
    by_rate = processor_has("GenuineIntel") and not few_rows
    return processor_has("amx_bf16" if by_rate else "avx512_bf16")


@functools.cache
def processor_has(flag: str) -> bool:
    """Whether /proc/cpuinfo names the flag; where there is no such file, no."""
    try:
        return flag in pathlib.Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False


_onednn = contextvars.ContextVar("onednn", default=False)
_kept = []  # XLA ends the process where such a program is forgotten behind a call


def by_onednn() -> bool:
    """Whether the program that is traced multiplies by oneDNN."""
    return _onednn.get()


def lower_by_onednn(function: Callable, *args, **more) -> Callable[[], Callable]:
    """Traces a program of large products that runs for long, as training does.

    oneDNN multiplies up to twice as fast as XLA's own products and takes operands that
    lie transposed as they are; but it gives the operands' dtype (where more is asked
    for, XLA converts them to float32, five times slower), and such a program is
    compiled at every start, since XLA cannot keep it. Where it is not faster, and where
    XLA_FLAGS say `--xla_cpu_use_onednn=false`, products are XLA's own.

    Args:
      function: to be compiled.
      args: its arguments, or their shapes.
      more: of jax.jit.

    Returns:
      compile() -> the program, to be called with such arguments. Needs no Python.
    """
    if not onednn_is_faster():
        return jax.jit(function, **more).lower(*args).compile
    options = {
        "xla_cpu_use_onednn": True,
        "xla_cpu_experimental_onednn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
    }
    token = _onednn.set(True)
    try:
        lowered = jax.jit(function, compiler_options=options, **more).lower(*args)
    finally:
        _onednn.reset(token)

    def compile_and_keep():
        _kept.append(lowered.compile())
        return _kept[-1]

    return compile_and_keep


def onednn_is_faster() -> bool:
    """Whether large products are oneDNN's here, as far as a program asks for it.

    They are on cores with AMX. Where a virtual machine hides it, Intel's AVX512-FP16
    tells the same cores: in float32 they are there too; in bfloat16, which 'auto' does
    not take there, a step takes a fifth longer.
    """
    if jax.default_backend() != "cpu":
        return False
    if "xla_cpu_use_onednn=false" in os.environ.get("XLA_FLAGS", ""):
        return False
    intel = processor_has("GenuineIntel")
    return processor_has("amx_tile") or (intel and processor_has("avx512_fp16"))


_by_sums = contextvars.ContextVar("by_sums", default=False)


def jit_by_sums(function: Callable, **more) -> Callable:
    """jax.jit of a program whose products have few rows, as a step of decoding.

    XLA's product packs its weights anew at every call, which takes longer than to
    multiply them. As sums (`sum_last`) they are read once, as they lie, nearly as fast
    as memory gives them, if the compiler may add in any order: what "fast math" stands
    for here, as XLA still honours infinities, NaN and division.

    Which it is, is seen at the first call: before, JAX need not know its devices.

    Args:
      function: to be compiled; its derivative is not to be had.
      more: of jax.jit.

    Returns:
      The function, compiled; its `program()` is what jax.jit returned.
    """

    @functools.wraps(function)
    def traced(*args, **named):
        token = _by_sums.set(True)
        try:
            return function(*args, **named)
        finally:
            _by_sums.reset(token)

    @functools.cache
    def program():
        if not sums_are_faster():
            return jax.jit(function, **more)
        options = {"xla_cpu_enable_fast_math": True, "xla_cpu_prefer_vector_width": 512}
        return jax.jit(traced, compiler_options=options, **more)

    @functools.wraps(function)
    def compiled(*args, **named):
        return program()(*args, **named)

    compiled.program = program
    return compiled


def sums_are_faster() -> bool:
    """Whether sums beat products of few rows on the default device.

    Cores with AMX, which take one side of a product as it lies, keep their products.
    """
    if jax.default_backend() != "cpu":
        return False
    return processor_has("avx2") and not processor_has("amx_tile")


def _are_summed(count: int) -> bool:
    """Whether so many sums are taken in one walk by the program that is traced."""
    return _by_sums.get() and 1 < count <= _SUMMED


def sum_last(x: jax.Array, *, beside: int) -> jax.Array:
    """x summed over its last axis.

    In programs of `jit_by_sums` the sums along another axis, if they are few, are taken
    in one walk, which reads once what they have in common.

    Args:
      x: a product, not computed before.
      beside: the other axis, from 0.
    """
    count = x.shape[beside]
    if not _are_summed(count):
        return x.sum(axis=-1)
    parts = [jax.lax.index_in_dim(x, i, beside, keepdims=False) for i in range(count)]
    zeros = [jnp.zeros((), x.dtype)] * count
    sums = jax.lax.reduce(parts, zeros, _added, (x.ndim - 2,))
    return jnp.stack(sums, axis=beside)


def _added(a, b):
    return [one + other for one, other in zip(a, b, strict=True)]


def product_dtype(name: str, *, few_rows: bool = False) -> jnp.dtype:
    """The dtype that a settings value 'auto', 'float32' or 'bfloat16' stands for.

    Args:
      name: the value.
      few_rows: as of `bfloat16_is_faster`.
    """
    if name == "auto":
        faster = bfloat16_is_faster(few_rows=few_rows)
        name = "bfloat16" if faster else "float32"
    return jnp.dtype(name)


def in_rows(x: jax.Array, *, always: bool = False) -> jax.Array:
    """x, copied into row-major memory where products read it faster so.

    Args:
      x: of any shape.
      always: on a CPU whatever the dtype, not only in bfloat16.
    """
    if jax.default_backend() != "cpu" or not (always or x.dtype == jnp.bfloat16):
        return x
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))


def transposed(x: jax.Array, *, always: bool = False) -> jax.Array:
    """x with its last two axes swapped, laid out as `in_rows` does."""
    return in_rows(jnp.swapaxes(x, -1, -2), always=always)


def times_transposed(
    a: jax.Array, b: jax.Array, dtype: jnp.dtype | None = None
) -> jax.Array:
    """a b^T over the last two axes: [..., N, D], [..., M, D] -> [..., N, M].

    Processors with AMX read b as it lies; for others a copy is laid out.

    Args:
      a: of any dtype.
      b: of the same.
      dtype: of the result; None = theirs. oneDNN rounds to theirs first.
    """
    if by_onednn():
        return jnp.einsum("...nd,...md->...nm", a, b).astype(dtype or a.dtype)
    if processor_has("amx_tile"):
        return jnp.einsum("...nd,...md->...nm", a, b, preferred_element_type=dtype)
    return jnp.matmul(a, transposed(b), preferred_element_type=dtype)


def unrounded(x: jax.Array) -> jax.Array:
    """x as an operand of products that stay float32: itself, but float32 for oneDNN."""
    return x.astype(jnp.float32) if by_onednn() else x


def read_once(
    x_ND: jax.Array, w_FD: jax.Array, dtype: jnp.dtype | None = None
) -> jax.Array:
    """x w^T as `times_transposed`, for reading: of w no copy is laid out.

    In programs of `jit_by_sums` few rows are sums. AMX takes a product's left side as
    it lies and packs its right side: few rows stand on the right. Else XLA packs what
    lies transposed at its rate.
    """
    rows = x_ND.shape[0]
    if _are_summed(rows) and rows % min(rows, _AT_ONCE) == 0:
        return _summed(x_ND, w_FD).astype(dtype or x_ND.dtype)
    if rows > _FEW or not processor_has("amx_tile"):
        return jnp.einsum("nd,fd->nf", x_ND, w_FD, preferred_element_type=dtype)
    y_FN = jnp.einsum("fd,nd->fn", w_FD, x_ND, preferred_element_type=dtype)
    return in_rows(y_FN, always=True).T  # in rows: else XLA turns the product around


def _summed(x_ND, w_FD):
    """x w^T in float32, of R rows in each walk."""
    rows, depth = x_ND.shape
    x_GRD = x_ND.reshape(-1, min(rows, _AT_ONCE), depth).astype(jnp.float32)
    # kept apart: XLA would compute x anew for each column, and before a loop's first
    # step a copy of all weights in float32
    x_GRD, w_FD = jax.lax.optimization_barrier((x_GRD, w_FD))
    products_GRFD = x_GRD[:, :, None] * w_FD.astype(jnp.float32)[None, None]
    return sum_last(products_GRFD, beside=1).reshape(rows, -1)


def wide_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """a b over the last two axes, in float32 whatever the operands are.

    In rows, so that XLA does not fold a transposition that follows: for what that would
    be it has no kernel that takes bfloat16 and gives float32. oneDNN rounds the sums
    to the operands' dtype, once.
    """
    if by_onednn():
        return jnp.matmul(a, b).astype(jnp.float32)
    wide = jnp.matmul(a, b, preferred_element_type=jnp.float32)
    return in_rows(wide, always=True)


def unshared(x: jax.Array) -> jax.Array:
    """x for one reader, which on a CPU shares nothing with the others.

    What two loops compute of x XLA computes once and writes, be it bfloat16 made
    float32, or a square; a sum of its own does it as it reads.
    """
    return jax.lax.optimization_barrier(x) if jax.default_backend() == "cpu" else x


def weighted_sum(x_ND: jax.Array, weight: jax.Array, *, axis: int) -> jax.Array:
    """Sum of x times the weight of each row (axis 0) or of each column (1).

    On a CPU a product: XLA sums what lies in memory, and for two sums of the same x
    would write it twice. Elsewhere it sums as it multiplies.

    Args:
      x_ND: float32.
      weight: float32 [N] or [D].
      axis: that is summed over.
    """
    if jax.default_backend() != "cpu":
        return (x_ND * jnp.expand_dims(weight, 1 - axis)).sum(axis)
    # twice: how a lone vector is summed hangs on the width of vector instructions
    twice = jnp.stack([weight, weight])
    return jnp.tensordot(twice, x_ND, ((1,), (axis,)))[0]


@jax.custom_vjp
def product(x_ND: jax.Array, w_DF: jax.Array) -> jax.Array:
    """Returns x w in the dtype of x, as is its gradient; that of w is in w's own."""
    return x_ND @ w_DF.astype(x_ND.dtype)


def _forward(x_ND, w_DF):
    return product(x_ND, w_DF), (x_ND, w_DF)


def _backward(saved, gradient_NF):
    x_ND, w_DF = saved
    gradient_ND = times_transposed(gradient_NF, w_DF.astype(x_ND.dtype))
    gradient_DF = _gradient_of_weights(x_ND, gradient_NF).astype(w_DF.dtype)
    return gradient_ND, gradient_DF


def _gradient_of_weights(x_ND, gradient_NF):
    """x^T g; in float32, where XLA transposes, by the narrower one's transpose."""
    if by_onednn():
        return wide_product(x_ND.T, gradient_NF)
    narrows = x_ND.shape[1] > gradient_NF.shape[1]
    if x_ND.dtype == jnp.float32 and narrows:
        return transposed(wide_product(transposed(gradient_NF), x_ND))
    return wide_product(transposed(x_ND), gradient_NF)


product.defvjp(_forward, _backward)
