"""From gradients to updates: optax's transforms, with every rate a traced number.

    update = -lr(step) x layer_rate x (direction + weight_decay x parameter)

direction is AdamW's or, for the layers' matrices under 'muon', the orthogonalised
momentum. Rates are inputs of the compiled step, so that a sweep compiles once.
"""

import jax
import jax.numpy as jnp
import optax

from tljax.model.product import unshared
from tljax.settings import OptimSettings
from tljax.train import unfreeze

_EPSILON = 1e-10
# a stack [n, in, out] of matrices is n problems
_STACKED = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)


def path_names(path: tuple) -> list[str]:
    """The keys on the way to a leaf."""
    return [str(entry.key) for entry in path]


def leaf_paths(tree: dict) -> dict:
    """The tree with every leaf replaced by its path, 'layers/0/...'."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "/".join(path_names(path)), tree
    )


def hyperparameters(
    settings: OptimSettings, steps: int, seed: int
) -> dict[str, jax.Array]:
    """What may differ between members of a population: float32 scalars, uint32 seed."""
    values = {
        "lr_peak": settings.lr_peak,
        "lr_muon": settings.lr_muon,
        "weight_decay": settings.weight_decay,
        "warmup": settings.warmup,
        "cooldown": settings.cooldown,
        "layer_decay": settings.layer_decay,
        "lora_plus": settings.lora_plus,
        "steps": steps,
    }
    numbers = {name: jnp.float32(value) for name, value in values.items()}
    return {**numbers, "seed": jnp.uint32(seed)}


def schedule(
    step: jax.Array, hparams: dict[str, jax.Array], name: str = "trapezoid"
) -> jax.Array:
    """Share of the peak rate at a step, in [0, 1].

        1 |    ________            __                 /\\___
          |   /        \\          /   \\__            /     \\___
        0 |__/          \\__     _/       \\__      _/          \\__ 1/32
            warmup  cooldown     warmup            warmup
               trapezoid           cosine            slanted

    Args:
      step: int32 scalar, steps done.
      hparams: of `hyperparameters`; warmup and cooldown are shares of the steps.
      name: one of OptimSettings.schedule.

    Source: cosine: Loshchilov & Hutter 2017, equation 5, without restarts; slanted:
    ULMFiT, Howard & Ruder 2018, equation 3.
    """
    return _SCHEDULES[name](step.astype(jnp.float32), hparams)


def _trapezoid(done, hparams):
    """Up over warmup, flat, down to zero over cooldown."""
    left = hparams["steps"] - done
    down = left / jnp.maximum(hparams["cooldown"] * hparams["steps"], 1.0)
    return jnp.clip(jnp.minimum(_warm_up(done, hparams), down), 0.0, 1.0)


def _cosine(done, hparams):
    """Up over warmup, then half a cosine that is zero after the last step."""
    rising = hparams["warmup"] * hparams["steps"]
    fallen = (done - rising) / jnp.maximum(hparams["steps"] - rising, 1.0)
    down = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(fallen, 0.0, 1.0)))
    return jnp.clip(jnp.minimum(_warm_up(done, hparams), down), 0.0, 1.0)


def _slanted(done, hparams, ratio=32.0):
    """ULMFiT's triangle: p rises to 1 at cut, then falls; share (1 + p (r - 1)) / r.

    cut = floor(warmup x steps); p falls over steps - cut, where the paper has
    cut (1 / cut_frac - 1): the same but for the rounding of cut, which there takes p
    below zero in short runs.
    """
    steps = hparams["steps"]
    cut = jnp.floor(hparams["warmup"] * steps)
    rising = done / jnp.maximum(cut, 1.0)
    falling = (steps - done) / jnp.maximum(steps - cut, 1.0)
    part = jnp.clip(jnp.where(done < cut, rising, falling), 0.0, 1.0)
    return (1.0 + part * (ratio - 1.0)) / ratio


def _warm_up(done, hparams):
    return (done + 1.0) / jnp.maximum(hparams["warmup"] * hparams["steps"], 1.0)


_SCHEDULES = {"trapezoid": _trapezoid, "cosine": _cosine, "slanted": _slanted}


def _is_muon(path: str) -> bool:
    return path.startswith("layers/") and path.endswith("kernel")


def clip(gradients: dict, clip_norm: float) -> tuple[dict, jax.Array]:
    """Gradients of a global norm of at most clip_norm, and their norm before that.

    Args:
      gradients: of one step.
      clip_norm: 0 = they stay as they are.

    Source: Pascanu et al. 2013, algorithm 1.
    """
    # leaf by leaf, as soon as one is there; squares that Adam's moments shared with
    # these would be written out
    norm = optax.tree.norm(jax.tree.map(unshared, gradients))
    if not clip_norm:
        return gradients, norm
    return optax.tree.scale(clip_norm / jnp.maximum(norm, clip_norm), gradients), norm


def direction(settings: OptimSettings) -> optax.GradientTransformation:
    """Gradient, clipped -> unit-sized direction of descent, before any rate.

    Source: Adam, Kingma & Ba 2015, algorithm 1; without bias_correction BERTAdam
    (Zhang et al. 2021, section 4; Mosbach et al. 2021), whose first steps are larger.
    """
    adam = optax.scale_by_adam(b1=settings.b1, b2=settings.b2, eps=_EPSILON)
    if not settings.bias_correction:
        adam = _uncorrected(adam)
    if settings.name == "adamw":
        return adam

    def kinds(tree):
        return jax.tree.map(
            lambda path: "muon" if _is_muon(path) else "adam", leaf_paths(tree)
        )

    muon = _stacked_by_shape(
        optax.chain(
            optax.contrib.scale_by_muon(
                beta=0.95,
                weight_dimension_numbers=lambda tree: jax.tree.map(
                    lambda _: _STACKED, tree
                ),
            ),
            optax.stateless_with_tree_map(lambda stack, _: stack * _wide(stack)),
        )
    )
    return optax.partition({"muon": muon, "adam": adam}, kinds)


def _wide(matrices: jax.Array) -> float:
    """Muon's factor of [n, in, out]: sqrt(max(1, out / in)) (Jordan 2024)."""
    return max(1.0, matrices.shape[2] / matrices.shape[1]) ** 0.5


def _uncorrected(adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """m / (sqrt(v) + epsilon) of Adam's own moments, as they are."""

    def update(updates, state, params=None):
        _, state = adam.update(updates, state, params)
        directions = jax.tree.map(
            lambda m, v: m / (jnp.sqrt(v) + _EPSILON), state.mu, state.nu
        )
        return directions, state

    return optax.GradientTransformation(adam.init, update)


def _stacked_by_shape(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """Runs `inner` on matrices of equal shape as one stack: 28 small problems as 2."""

    def stack(tree):
        groups = {}
        for leaf in jax.tree.leaves(tree):
            groups.setdefault("x".join(map(str, leaf.shape)), []).append(leaf)
        return {name: jnp.stack(leaves) for name, leaves in groups.items()}

    def unstack(stacks, like):
        rows = {name: iter(list(stack)) for name, stack in stacks.items()}
        return jax.tree.map(
            lambda leaf: next(rows["x".join(map(str, leaf.shape))]), like
        )

    def update(updates, state, params=None):
        stacks, state = inner.update(stack(updates), state, params and stack(params))
        return unstack(stacks, updates), state

    return optax.GradientTransformation(
        lambda params: inner.init(stack(params)), update
    )


def apply_direction(
    settings: OptimSettings,
    params: dict,
    directions: dict,
    step: jax.Array,
    hparams: dict[str, jax.Array],
) -> dict:
    """Returns params after one step along the directions.

    Muon's matrices move at lr_muon; layer i by layer_decay^(N - i) of the head's rate,
    N - 1 being the highest that moves (ULMFiT, section 3.2); LoRA's b by lora_plus x
    the rate of its a (LoRA+, Hayou et al. 2024: eta_B = lambda eta_A, lambda > 1).

    A layer whose turn it is not (`unfreeze.turns`) neither moves nor decays. Its
    gradient is computed all the same: it counts for clip_norm, and its moments run on,
    so that it does not set off in the direction of a single batch.
    """
    share = schedule(step, hparams, settings.schedule)
    # of a part that moves, the lowest layers may be missing
    depth = 1 + max(map(int, params.get("layers", {})), default=-1)
    turns = unfreeze.turns(settings.unfreeze, params, step, hparams["steps"])

    def move(path, leaf, ascent):
        names = path_names(path)
        if names[0] == "layers":
            below = depth - int(names[1])
        else:
            below = depth + 1 if names[0] == "embedding" else 0
        rate = share * hparams["layer_decay"] ** below
        if settings.name == "muon" and _is_muon("/".join(names)):
            rate *= hparams["lr_muon"]
        else:
            rate *= hparams["lr_peak"]
        if names[0] == "layers" and names[-1] == "b":
            rate *= hparams["lora_plus"]
        decay = hparams["weight_decay"] if leaf.ndim >= 2 else 0.0
        moved = leaf - rate * (ascent + decay * leaf)
        turn = turns.get("/".join(names))
        return moved if turn is None else jnp.where(turn, moved, leaf)

    return jax.tree_util.tree_map_with_path(move, params, directions)
