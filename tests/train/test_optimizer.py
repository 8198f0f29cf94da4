"""Updates are those of optax's AdamW and Muon; rates, decay and schedule by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tljax.train import optimizer

# float32, a dozen roundings a step over three steps
CLOSE = {"rtol": 1e-4, "atol": 1e-6}
LAYER = {"up": {"kernel": (4, 6)}, "out": {"kernel": (4, 4)}, "norm": {"scale": (4,)}}
SHAPES = {
    "embedding": {"tokens": (9, 4)},
    "layers": {"0": LAYER, "1": LAYER},
    "head": {"kernel": (4, 3), "bias": (3,)},
}


def draw(seed):
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: random.standard_normal(shape).astype(np.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def run(settings, steps=3):
    """Parameters after some steps of made-up gradients."""
    hparams = optimizer.hyperparameters(settings, steps, seed=0)
    transform = optimizer.direction(settings)

    @jax.jit
    def update(params, state, step, gradients):
        gradients, _ = optimizer.clip(gradients, settings.clip_norm)
        directions, state = transform.update(gradients, state, params)
        moved = optimizer.apply_direction(settings, params, directions, step, hparams)
        return moved, state

    params = draw(0)
    state = transform.init(params)
    for step in range(steps):
        params, state = update(params, state, jnp.int32(step), draw(step + 1))
    return params


def run_optax(transform, steps=3):
    @jax.jit
    def update(params, state, gradients):
        updates, state = transform.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    params = draw(0)
    state = transform.init(params)
    for step in range(steps):
        params, state = update(params, state, draw(step + 1))
    return params


def assert_close(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), ours, theirs)


def matrices(tree):
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, tree)


def test_adamw_is_optax_s(optim_settings):
    settings = dataclasses.replace(optim_settings, weight_decay=0.3, clip_norm=2.0)
    reference = optax.chain(
        optax.clip_by_global_norm(2.0),
        optax.adamw(0.01, b1=0.9, b2=0.99, eps=1e-10, weight_decay=0.3, mask=matrices),
    )
    assert_close(run(settings), run_optax(reference))


def test_muon_is_optax_s_one_matrix_at_a_time(optim_settings):
    settings = dataclasses.replace(optim_settings, name="muon", weight_decay=0.3)

    def dimensions(tree):
        # optax takes [in, out]; None = AdamW
        one = optax.contrib.MuonDimensionNumbers(0, 1)
        return jax.tree_util.tree_map_with_path(
            lambda path, _: (
                one if path[0].key == "layers" and path[-1].key == "kernel" else None
            ),
            tree,
        )

    reference = optax.chain(
        optax.contrib.muon(
            0.02,
            weight_decay=0.3,
            adam_learning_rate=0.01,
            adam_b1=0.9,
            adam_b2=0.99,
            muon_weight_dimension_numbers=dimensions,
        ),
    )
    ours, theirs = run(settings), run_optax(reference)
    assert_close(ours["layers"]["0"]["up"], theirs["layers"]["0"]["up"])
    assert_close(ours["layers"]["1"]["out"], theirs["layers"]["1"]["out"])
    # the rest is AdamW, whose decay is ours
    by_adam = run(dataclasses.replace(settings, name="adamw"))
    for tree in (ours, by_adam):
        for layer in tree["layers"].values():
            del layer["up"], layer["out"]
    assert_close(ours, by_adam)


@pytest.mark.parametrize(
    ("clip_norm", "share"), [(0.0, 1.0), (1.0, 0.2), (5.0, 1.0), (6.0, 1.0)]
)
def test_clipping_scales_all_gradients_together(clip_norm, share):
    gradients = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    clipped, norm = optimizer.clip(gradients, clip_norm)
    assert norm == 5.0  # of what was given
    for name, gradient in gradients.items():
        np.testing.assert_allclose(clipped[name], share * gradient, rtol=1e-6)


def test_gradients_of_nothing_stay_nothing_when_clipped():
    clipped, norm = optimizer.clip({"a": jnp.zeros(2)}, 1.0)
    assert norm == 0.0
    np.testing.assert_array_equal(clipped["a"], [0.0, 0.0])


SCHEDULES = [
    # warmup, cooldown as shares of 10 steps
    (0.0, 0.0, [1] * 10),
    (0.4, 0.0, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1]),
    (0.0, 0.5, [1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]),
    (0.2, 0.5, [0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]),
    (1.0, 1.0, [0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.4, 0.3, 0.2, 0.1]),
]


@pytest.mark.parametrize(("warmup", "cooldown", "by_hand"), SCHEDULES)
def test_the_schedule_by_hand(optim_settings, warmup, cooldown, by_hand):
    settings = dataclasses.replace(optim_settings, warmup=warmup, cooldown=cooldown)
    hparams = optimizer.hyperparameters(settings, steps=10, seed=0)
    shares = [float(optimizer.schedule(jnp.int32(t), hparams)) for t in range(10)]
    np.testing.assert_allclose(shares, by_hand, rtol=1e-6)
    if cooldown:
        assert optimizer.schedule(jnp.int32(10), hparams) == 0


def shares_of(settings, name, steps):
    hparams = optimizer.hyperparameters(settings, steps=steps, seed=0)
    return [
        float(optimizer.schedule(jnp.int32(t), hparams, name)) for t in range(steps)
    ]


def test_the_cosine_is_optax_s_after_a_line_up(optim_settings):
    settings = dataclasses.replace(optim_settings, warmup=0.25)
    down = optax.cosine_decay_schedule(1.0, decay_steps=9)
    by_hand = [1 / 3, 2 / 3, 1.0, *(down(t) for t in range(9))]
    np.testing.assert_allclose(shares_of(settings, "cosine", 12), by_hand, rtol=1e-5)
    hparams = optimizer.hyperparameters(settings, steps=12, seed=0)
    assert optimizer.schedule(jnp.int32(12), hparams, "cosine") == 0


@pytest.mark.parametrize(("cut_frac", "steps"), [(0.1, 20), (0.25, 8), (0.5, 4)])
def test_the_slanted_triangle_is_ulmfit_s(optim_settings, cut_frac, steps):
    """Equation 3, where cut_frac x steps is a whole number."""
    cut, expected = int(cut_frac * steps), []
    for t in range(steps):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
        expected.append((1 + p * (32 - 1)) / 32)
    settings = dataclasses.replace(optim_settings, warmup=cut_frac)
    found = shares_of(settings, "slanted", steps)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[0] == 1 / 32 and max(found) == found[cut] == 1


def test_the_slanted_triangle_of_a_short_run_stays_above_its_foot(optim_settings):
    settings = dataclasses.replace(optim_settings, warmup=0.15)
    found = shares_of(settings, "slanted", 13)  # the paper's p would end at -1.1
    assert found == sorted(found[:1]) + sorted(found[1:], reverse=True)
    np.testing.assert_allclose(found[-1], (1 + 31 / 12) / 32, rtol=1e-5)


def test_without_bias_correction_adam_is_bert_adam(optim_settings):
    settings = dataclasses.replace(optim_settings, bias_correction=False, lr_peak=0.1)
    params = draw(0)
    m, v = (jax.tree.map(np.zeros_like, params) for _ in range(2))
    for step in range(3):
        gradient = draw(step + 1)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, gradient)
        v = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g**2, v, gradient)
        params = jax.tree.map(
            lambda p, m, v: p - 0.1 * m / (np.sqrt(v) + 1e-10), params, m, v
        )
    assert_close(run(settings), params)


def test_lora_s_b_has_a_rate_of_its_own(optim_settings):
    """LoRA+: lr_b = ratio x lr_a; at 1 nothing changes, to the bit."""
    factors = {"kernel": jnp.ones((2, 2)), "a": jnp.ones((2, 1)), "b": jnp.ones((1, 2))}
    params = {"layers": {"0": {"query": factors}}, "head": {"b": jnp.ones(2)}}

    def moved(**changes):
        settings = dataclasses.replace(optim_settings, lr_peak=0.01, **changes)
        hparams = optimizer.hyperparameters(settings, steps=4, seed=0)
        return optimizer.apply_direction(
            settings, params, params, jnp.int32(0), hparams
        )

    plain, plus = moved(), moved(lora_plus=16.0)
    query = plus["layers"]["0"]["query"]
    np.testing.assert_allclose(query["b"], np.full((1, 2), 1 - 0.16), rtol=1e-6)
    for name in ("a", "kernel"):
        np.testing.assert_array_equal(query[name], plain["layers"]["0"]["query"][name])
    np.testing.assert_array_equal(plus["head"]["b"], plain["head"]["b"])


def ones_moved(settings, ascent):
    """Parameters that were 1, after one step along a direction that is `ascent`."""
    ones = jax.tree.map(jnp.ones_like, draw(0))
    directions = jax.tree.map(lambda leaf: leaf * ascent, ones)
    hparams = optimizer.hyperparameters(settings, steps=4, seed=0)
    moved = optimizer.apply_direction(settings, ones, directions, jnp.int32(0), hparams)
    for leaf in jax.tree.leaves(moved):
        assert np.ptp(leaf) == 0
    return jax.tree.map(lambda leaf: float(leaf.ravel()[0]), moved)


def test_decay_shrinks_matrices_in_proportion_to_the_rate(optim_settings):
    settings = dataclasses.replace(optim_settings, lr_peak=0.1, weight_decay=0.5)
    moved = ones_moved(settings, ascent=0.0)
    shrunk = pytest.approx(1 - 0.1 * 0.5)
    assert moved["embedding"]["tokens"] == shrunk
    assert moved["head"] == {"kernel": shrunk, "bias": 1.0}
    for layer in moved["layers"].values():
        assert layer["up"]["kernel"] == layer["out"]["kernel"] == shrunk
        assert layer["norm"]["scale"] == 1.0


def test_a_layer_learns_slower_the_deeper_it_lies(optim_settings):
    settings = dataclasses.replace(
        optim_settings, lr_peak=0.1, layer_decay=0.5, warmup=1.0
    )
    moved = ones_moved(settings, ascent=1.0)
    rate = 0.1 / 4  # first of four steps of warm-up
    assert moved["head"]["bias"] == pytest.approx(1 - rate)
    assert moved["layers"]["1"]["norm"]["scale"] == pytest.approx(1 - rate / 2)
    assert moved["layers"]["0"]["up"]["kernel"] == pytest.approx(1 - rate / 4)
    assert moved["embedding"]["tokens"] == pytest.approx(1 - rate / 8)


def test_muon_s_matrices_have_a_rate_of_their_own(optim_settings):
    settings = dataclasses.replace(
        optim_settings, name="muon", lr_peak=0.1, lr_muon=0.2, layer_decay=0.5
    )
    top = ones_moved(settings, ascent=1.0)["layers"]["1"]
    assert top["out"]["kernel"] == pytest.approx(1 - 0.2 / 2)
    assert top["up"]["kernel"] == pytest.approx(1 - 0.2 / 2)  # its width is in ascent
    assert top["norm"]["scale"] == pytest.approx(1 - 0.1 / 2)


def test_of_a_part_that_moves_each_layer_keeps_its_rate(optim_settings):
    settings = dataclasses.replace(optim_settings, lr_peak=0.1, layer_decay=0.5)
    hparams = optimizer.hyperparameters(settings, steps=4, seed=0)

    def moved(params):
        return optimizer.apply_direction(
            settings, params, params, jnp.int32(0), hparams
        )

    whole = jax.tree.map(jnp.ones_like, draw(0))
    top = {"layers": {"1": whole["layers"]["1"]}, "head": whole["head"]}
    part, all_of_it = moved(top), moved(whole)
    assert jax.tree.all(
        jax.tree.map(np.array_equal, part["layers"]["1"], all_of_it["layers"]["1"])
    )
    head = moved({"head": whole["head"]})  # nothing but the head moves
    assert np.array_equal(head["head"]["kernel"], all_of_it["head"]["kernel"])
