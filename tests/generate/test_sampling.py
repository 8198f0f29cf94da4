"""Sampling by hand on five words, and by frequency where chance decides."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.generate.sampling import Sampling, filtered, sample
from tljax.settings import InputError, from_config

# Their logarithms are the logits of most tests here.
P = [0.4, 0.3, 0.2, 0.06, 0.04]
PLAIN = Sampling(temperature=1.0)
_filtered, _sample = jax.jit(filtered), jax.jit(sample)


def kept(p, **changes):
    """The words that filters leave of probabilities p, as '01...'."""
    logits_BV = jnp.log(jnp.array([p], jnp.float32))
    left_BV = _filtered(logits_BV, dataclasses.replace(PLAIN, **changes))
    return "".join(str(i) for i in np.flatnonzero(np.isfinite(left_BV[0])))


@pytest.mark.parametrize(
    ("p", "changes", "left"),
    [
        (P, {}, "01234"),
        (P, {"top_k": 1}, "0"),
        (P, {"top_k": 3}, "012"),
        (P, {"top_k": 9}, "01234"),
        ([0.3, 0.1, 0.3, 0.3, 0.0], {"top_k": 2}, "023"),  # ties stay
        (P, {"top_p": 0.01}, "0"),
        (P, {"top_p": 0.39}, "0"),
        (P, {"top_p": 0.41}, "01"),  # 0.4 alone does not reach it
        (P, {"top_p": 0.69}, "01"),
        (P, {"top_p": 0.71}, "012"),
        (P, {"top_p": 0.97}, "01234"),
        ([0.04, 0.3, 0.06, 0.4, 0.2], {"top_p": 0.71}, "134"),
        ([0.25, 0.25, 0.1, 0.25, 0.15], {"top_p": 0.5}, "013"),  # equals stay together
        (P, {"min_p": 0.74}, "01"),  # 0.3 / 0.4 = 0.75
        (P, {"min_p": 0.76}, "0"),
        (P, {"min_p": 0.12}, "0123"),
        (P, {"min_p": 1.0}, "0"),
        # top-p sees what top-k left: 0.4 / 0.7 = 0.57 of it
        (P, {"top_k": 2, "top_p": 0.56}, "0"),
        (P, {"top_k": 2, "top_p": 0.58}, "01"),
        # temperature comes first: squared, 0.4 weighs 0.53 of all; then 0.3, 0.3
        (P, {"temperature": 0.5, "top_p": 0.53}, "0"),
        (P, {"temperature": 0.5, "top_p": 0.55}, "01"),
        (P, {"temperature": 0.5, "min_p": 0.55}, "01"),  # (0.3 / 0.4)^2 = 0.56
        (P, {"temperature": 0.5, "min_p": 0.57}, "0"),
    ],
)
def test_filters_by_hand(p, changes, left):
    assert kept(p, **changes) == left


def test_what_is_left_keeps_its_odds():
    logits_BV = jnp.array([[3.0, 1.0, 2.0, -1.0, 0.0]])
    left_BV = _filtered(logits_BV, Sampling(temperature=2.0, top_k=3))
    by_hand = [[0.0, -1.0, -0.5, -np.inf, -np.inf]]
    np.testing.assert_array_equal(left_BV, by_hand)


def draw(logits_BV, sampling, seen_BV=None, seed=0):
    logits_BV = jnp.asarray(logits_BV, jnp.float32)
    seen_BV = jnp.zeros(logits_BV.shape, bool) if seen_BV is None else seen_BV
    keys_B = jax.random.split(jax.random.key(seed), logits_BV.shape[0])
    return np.asarray(_sample(logits_BV, seen_BV, keys_B, sampling))


def test_greedy_takes_the_likeliest_whatever_the_key():
    logits_BV = [[0.0, 2.0, 1.0], [5.0, 2.0, 5.0], [-3.0, -2.0, -1.0]]
    for seed in range(3):
        tokens_B = draw(logits_BV, Sampling(temperature=0.0, top_k=2), seed=seed)
        assert tokens_B.tolist() == [1, 0, 2]
    assert tokens_B.dtype == np.int32


def test_the_repetition_penalty_divides_what_is_positive_and_multiplies_the_rest():
    logits_BV = np.tile([[3.0, 2.0, 1.0, -1.0, -3.0]], (3, 1))
    seen_BV = np.array(
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool
    )  # fmt: skip
    greedy = Sampling(temperature=0.0, repetition_penalty=4.0)
    # 3 / 4 = 0.75, 2 / 4 = 0.5: the next takes its place
    assert draw(logits_BV, greedy, seen_BV).tolist() == [1, 2, 0]
    # -1 x 4 = -4 falls behind -3; divided it would stay ahead
    below_BV = np.array([[-1.0, -3.0]])
    assert draw(below_BV, greedy, np.array([[True, False]])).tolist() == [1]
    # and it comes before the other filters: 0.75 is what top-k sees
    one = Sampling(temperature=1.0, top_k=1, repetition_penalty=4.0)
    assert draw(logits_BV, one, seen_BV).tolist() == [1, 2, 0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_those_of_the_softmax(temperature):
    draws = 20_000
    logits_V = np.array([2.0, 1.0, 0.5, 0.0, -1.0])
    tokens_B = draw(np.tile(logits_V, (draws, 1)), Sampling(temperature=temperature))
    p_V = np.exp(logits_V / temperature)
    p_V /= p_V.sum()
    found_V = np.bincount(tokens_B, minlength=5) / draws
    # five standard errors: one correct run in 300,000 would fail
    assert (np.abs(found_V - p_V) < 5 * np.sqrt(p_V * (1 - p_V) / draws)).all()


def test_draws_stay_inside_the_filters():
    logits_BV = np.tile(np.log(P), (2_000, 1))
    tokens_B = draw(logits_BV, Sampling(temperature=1.0, top_p=0.69))
    found_V = np.bincount(tokens_B, minlength=5) / 2_000
    assert not found_V[2:].any()
    assert abs(found_V[0] - 4 / 7) < 5 * np.sqrt(4 / 7 * 3 / 7 / 2_000)


@pytest.mark.parametrize("temperature", [1e-37, 1e-6])
def test_the_coldest_temperature_is_greedy(temperature):
    logits_BV = [[1.0, 90.0, 89.0], [-80.0, -90.0, -70.0]]
    assert draw(logits_BV, Sampling(temperature=temperature)).tolist() == [1, 2]


def test_a_rows_token_depends_on_its_own_key_and_logits_only():
    random = np.random.default_rng(0)
    logits_BV = jnp.asarray(random.normal(size=(6, 50)), jnp.float32)
    seen_BV = jnp.asarray(random.random((6, 50)) < 0.2)
    keys_B = jax.random.split(jax.random.key(0), 6)
    sampling = Sampling(1.0, top_k=40, top_p=0.9, min_p=0.01, repetition_penalty=1.2)
    together = _sample(logits_BV, seen_BV, keys_B, sampling)
    order = np.array([4, 0, 2])
    some = _sample(logits_BV[order], seen_BV[order], keys_B[order], sampling)
    np.testing.assert_array_equal(some, together[order])
    assert len(set(together.tolist())) > 1


def test_other_numbers_compile_nothing_anew():
    compiled = jax.jit(lambda *given: sample(*given))
    given = (
        jnp.zeros((1, 5)),
        jnp.zeros((1, 5), bool),
        jax.random.split(jax.random.key(0), 1),
    )
    for sampling in (PLAIN, Sampling(0.0), Sampling(0.7, 3, 0.9, 0.1, 1.2)):
        compiled(*given, jax.tree.map(np.float32, sampling))
    assert compiled._cache_size() == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"temperature": -0.1}, "chat.temperature is -0.1; it must be a number of at"),
        ({"temperature": float("nan")}, "chat.temperature is nan"),
        ({"temperature": float("inf")}, "chat.temperature is inf"),
        ({"temperature": "warm"}, "chat.temperature is 'warm'"),
        ({"temperature": 1e300}, "it must be a number of at least 0 and at most 1,000"),
        (
            {"top_k": -1},
            "chat.top_k is -1; it must be a whole number of at least 0 and",
        ),
        ({"top_k": 10**300}, "and at most 1,000,000,000: tokens kept"),
        ({"top_k": 2.5}, "chat.top_k is 2.5"),
        (
            {"top_p": 0.0},
            "chat.top_p is 0.0; it must be a number above 0 and at most 1: the fewest",
        ),
        ({"top_p": 1.1}, "chat.top_p is 1.1"),
        ({"top_p": 1e-300}, "chat.top_p is 1e-300"),  # 0 in float32: none would be kept
        (
            {"min_p": -0.1},
            "chat.min_p is -0.1; it must be a number of at least 0 and at",
        ),
        ({"min_p": 1.1}, "chat.min_p is 1.1"),
        (
            {"repetition_penalty": 0.0},
            "chat.repetition_penalty is 0.0; it must be a number of at least 0.001 and",
        ),
        ({"repetition_penalty": 1e300}, "at least 0.001 and at most 1,000:"),
        ({"repetition_penalty": True}, "chat.repetition_penalty is True"),
    ],
)
def test_numbers_out_of_range_are_refused(changes, said):
    PLAIN.check("chat")
    Sampling(0, 5, 1, 0, 2).check("chat")
    with pytest.raises(InputError, match=re.escape(said)):
        dataclasses.replace(PLAIN, **changes).check("chat")


def test_a_config_may_hold_them():
    assert from_config(Sampling, {"temperature": 1}) == PLAIN
    with pytest.raises(InputError, match="config.repetition_penalty is 0.0"):
        from_config(Sampling, {"temperature": 1.0, "repetition_penalty": 0.0})
