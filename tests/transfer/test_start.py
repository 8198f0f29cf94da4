"""Near the first weights: by hand, by the gradient of the equation, on the mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.transfer import start


def tree(seed):
    random = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.float32(random.standard_normal(shape))

    return {
        "embedding": {"tokens": draw(5, 4)},
        "layers": {
            "1": {
                "mlp": {"up": {"kernel": draw(4, 6), "bias": draw(6)}},
                "mlp_norm": {"scale": draw(4)},
            }
        },
        "head": {"kernel": draw(4, 2)},
    }


@pytest.fixture
def params():
    return tree(0)


@pytest.fixture
def began():
    began = tree(1)
    del began["head"]
    return began


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_pull_is_the_gradient_of_the_papers_penalty(params, began):
    def penalty(params):
        body = {name: leaf for name, leaf in params.items() if name != "head"}
        apart = jax.tree.map(lambda w, first: ((w - first) ** 2).sum(), body, began)
        return (
            0.3
            / 2
            * (sum(jax.tree.leaves(apart)) + (params["head"]["kernel"] ** 2).sum())
        )

    ones = jax.tree.map(jnp.ones_like, params)
    pulled = start.pull(ones, params, began, jnp.float32(0.3))
    expected = jax.tree.map(lambda pull: 1 + pull, jax.grad(penalty)(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5), pulled, expected)


def test_nothing_pulls_where_it_all_began(params, began):
    there = {**began, "head": {"kernel": jnp.zeros((4, 2))}}
    same(start.pull(params, there, began, jnp.float32(9.0)), params)


def test_mixout_changes_nothing_where_it_all_began(params, began):
    there = {**began, "head": params["head"]}
    same(start.mixout(there, began, jnp.float32(0.7), jax.random.key(0)), there)


def test_an_entry_is_the_first_one_or_that_of_equation_5(params, began):
    p = 0.25
    mixed = start.mixout(params, began, jnp.float32(p), jax.random.key(0))
    w, u, found = (
        t["layers"]["1"]["mlp"]["up"]["kernel"] for t in (params, began, mixed)
    )
    back = np.isclose(found, u, rtol=1e-6)
    assert 0 < back.sum() < back.size
    np.testing.assert_allclose(found, np.where(back, u, (w - p * u) / (1 - p)), 1e-5)
    # all but the layers' matrices is as it was
    mixed["layers"]["1"]["mlp"]["up"]["kernel"] = w
    same(mixed, params)


def test_the_mean_of_mixout_is_the_weight(params, began):
    keys = jax.random.split(jax.random.key(0), 4000)
    draw = jax.jit(jax.vmap(lambda key: start.mixout(params, began, 0.5, key)))
    kernels = draw(keys)["layers"]["1"]["mlp"]["up"]["kernel"]
    w, u = (t["layers"]["1"]["mlp"]["up"]["kernel"] for t in (params, began))
    error = np.abs(kernels.mean(axis=0) - w)
    # an entry's spread is |w - u| sqrt(p / (1 - p)); five standard errors
    assert (error < 5 * np.abs(w - u) / np.sqrt(4000) + 1e-5).all()


def test_matrices_draw_places_of_their_own(params, began):
    both = {"query": {"kernel": jnp.ones((9, 9))}, "key": {"kernel": jnp.ones((9, 9))}}
    ones = {"layers": {"0": both}}
    zeros = jax.tree.map(jnp.zeros_like, ones)
    mixed = start.mixout(ones, zeros, 0.5, jax.random.key(0))["layers"]["0"]
    assert (mixed["query"]["kernel"] != mixed["key"]["kernel"]).any()


def test_a_mixture_by_hand(params, began):
    there = start.between(params, began, 0.25)
    same(there.pop("head"), params.pop("head"))
    expected = jax.tree.map(lambda w, u: 0.75 * u + 0.25 * w, params, began)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6), there, expected)


def test_a_whole_share_is_what_was_learned(params, began):
    same(start.between(params, began, 1.0), params)
