"""The parts by hand: next words drawn, divergence in numpy, noise within its bounds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.model import heads, transformer
from tljax.objective import regularize
from tljax.objective.classification import labelled_loss, logits
from tljax.settings import UNREGULARIZED, TransferSettings

ALL = TransferSettings()  # all weights move
KEY = jax.random.key(3)
BATCH = {
    "tokens_BL": np.array([[3, 4, 5, 6, 0], [7, 8, 9, 2, 2], [4, 4, 0, 0, 0]]),
    "segments_BL": np.array([[1, 1, 2, 2, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]),
    "labels_BM": np.array([[2, 0], [1, 0], [2, 0]]),
    "weights_BM": np.float32([[1, 1], [1, 0], [1, 0]]),
    "frozen": {},
}


@pytest.fixture
def params(model_settings, draw_params):
    def init(key):
        params = transformer.init_params(model_settings, 10, key)
        return params | {"head": heads.init_classifier(16, 3, key)}

    return draw_params(init, jax.random.key(0))


def nats_of(model, params, **on):
    """The loss with strengths `on`, which only reach it as traced numbers."""
    settings = dataclasses.replace(UNREGULARIZED, **on)
    start = {name: leaf for name, leaf in params.items() if name != "head"}
    loss = labelled_loss(model, "mean", ALL, settings)

    @jax.jit
    def nats(params, hparams):
        return loss(params, BATCH | {"hparams": hparams, "start": start}, KEY)[0]

    return float(nats(params, regularize.hyperparameters(settings, model)))


def test_next_words_are_of_the_same_text():
    tokens, segments = jnp.array([[5, 6, 7, 8, 9, 0]]), jnp.array([[1, 1, 1, 2, 2, 0]])
    found = regularize.next_words(tokens, segments)
    np.testing.assert_array_equal(found, [[6, 7, -1, 9, -1, -1]])
    full = regularize.next_words(tokens[:, :3], segments[:, :3])
    np.testing.assert_array_equal(full, [[6, 7, -1]])


def test_the_divergence_by_hand():
    p, q = np.float32([[[0.5, 0.3, 0.2]]]), np.float32([[[0.2, 0.2, 0.6]]])
    expected = ((p * np.log(p / q)).sum() + (q * np.log(q / p)).sum()) / 2
    found = regularize.divergence(jnp.log(p) + 3.0, jnp.log(q))
    np.testing.assert_allclose(found, [[expected]], rtol=1e-5)
    assert regularize.divergence(jnp.log(p), jnp.log(p)) == 0


def test_noise_fills_the_bounds_of_each_text():
    segments = np.zeros((1, 50), np.int32)
    segments[0, :40], segments[0, 40:44] = 1, 2
    noise = regularize.embedding_noise(segments, 64, jnp.float32(5.0), KEY)
    for places, tokens in ((slice(0, 40), 40), (slice(40, 44), 4)):
        most, bound = np.abs(noise[0, places]).max(), 5 / np.sqrt(tokens * 64)
        assert 0.9 * bound < most <= bound
    assert np.abs(noise[0, :40].mean()) < 0.05 * np.abs(noise[0, :40]).max()


@pytest.mark.parametrize(
    "on", [{"rdrop": 2.0}, {"mixout": 0.6}, {"l2_start": 3.0}, {"ema": 0.9}]
)
def test_without_dropout_and_at_the_start_the_loss_is_the_plain_one(
    model_settings, params, on
):
    plain = nats_of(model_settings, params)
    np.testing.assert_allclose(nats_of(model_settings, params, **on), plain, rtol=1e-6)


@pytest.mark.parametrize("on", ["label_smoothing", "neftune", "lm_weight"])
def test_a_strength_of_next_to_nothing_does_next_to_nothing(model_settings, params, on):
    plain = nats_of(model_settings, params)
    weak, strong = (nats_of(model_settings, params, **{on: x}) for x in (1e-7, 0.5))
    np.testing.assert_allclose(weak, plain, rtol=1e-5)
    assert abs(strong - plain) > 1e-3


def test_two_passes_by_equation_4(model_settings, params):
    model = dataclasses.replace(model_settings, dropout=0.3)
    keys = [KEY, jax.random.fold_in(KEY, regularize.SECOND_PASS)]
    passes = [np.float64(logits(model, "mean", params, BATCH, key)) for key in keys]
    p, q = (np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True) for x in passes)
    kl = ((p - q) * np.log(p / q)).sum(axis=-1) / 2
    log_pq = np.take_along_axis(np.log(p * q), BATCH["labels_BM"][..., None], -1)[
        ..., 0
    ]
    expected = (BATCH["weights_BM"] * (-log_pq + 0.7 * kl)).sum() / 2
    assert kl[BATCH["weights_BM"] > 0].min() > 1e-4
    found = nats_of(model, params, rdrop=0.7)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_next_words_by_equation_5(model_settings, params):
    states = transformer.apply(model_settings, params, BATCH)
    log_p = jax.nn.log_softmax(transformer.logits_of(params, states))
    after = [
        (0, 0, 4),
        (0, 2, 6),
        (1, 0, 8),
        (1, 1, 9),
        (1, 2, 2),
        (1, 3, 2),
        (2, 0, 4),
    ]
    words = np.mean([-log_p[place] for place in after])
    plain = nats_of(model_settings, params)
    found = nats_of(model_settings, params, lm_weight=0.5)
    np.testing.assert_allclose(found, plain + 0.5 * 4 * words, rtol=1e-5)


def test_traced_dropout_is_that_of_the_settings(model_settings, params):
    """Not always bit for bit: XLA may round otherwise what it knows beforehand."""
    one, other = (dataclasses.replace(model_settings, dropout=p) for p in (0.3, 0.1))

    def gradient(model, hparams):
        loss = jax.grad(lambda *args: labelled_loss(model, "mean", ALL)(*args)[0])
        return jax.jit(loss)(params, BATCH | hparams, KEY)

    fixed = gradient(one, {})
    # what is compiled in is another share: only the number counts
    numbers = {"hparams": regularize.hyperparameters(UNREGULARIZED, one)}
    for scan in (False, True):
        traced = gradient(dataclasses.replace(other, scan_layers=scan), numbers)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5), traced, fixed
        )


def test_every_second_step_adds_other_words(model_settings, params):
    segments = np.ones((2, 5), np.int32)
    bank = {"tokens_BL": BATCH["tokens_BL"][1:], "segments_BL": segments}
    bank["targets_BL"] = np.array([[8, 9, 2, 2, 1], [4, -1, -1, -1, -1]])
    bank = jax.tree.map(jnp.asarray, bank)
    on = dataclasses.replace(UNREGULARIZED, replay=0.3, replay_every=2)
    batch = BATCH | {"hparams": regularize.hyperparameters(on, model_settings)}
    loss = labelled_loss(model_settings, "mean", ALL, on)

    @jax.jit
    def nats(params, step):
        return loss(params, batch | {"replay": bank, "step": step}, KEY)[0]

    plain = nats_of(model_settings, params)
    np.testing.assert_allclose(nats(params, 1), plain, rtol=1e-6)
    drawn = regularize.drawn_rows(bank, 3, KEY)
    log_p = jax.nn.log_softmax(
        transformer.logits_of(params, transformer.apply(model_settings, params, drawn))
    )
    targets = drawn["targets_BL"]
    chosen = np.take_along_axis(log_p, np.maximum(targets, 0)[..., None], -1)[..., 0]
    words = -chosen[targets >= 0].mean()
    np.testing.assert_allclose(nats(params, 2), plain + 0.3 * 4 * words, rtol=1e-5)


def test_rows_are_drawn_by_the_step(params):
    bank = {"tokens_BL": jnp.arange(1000)[:, None]}
    one, other = (
        regularize.drawn_rows(bank, 8, jax.random.key(i))["tokens_BL"] for i in (0, 1)
    )
    assert one.shape == (8, 1) and not (one == other).all()
