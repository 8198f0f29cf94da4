"""The whole network: causal, blind across segments, the same scanned or unrolled."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.model import cache as caches
from tljax.model import product, transformer
from tljax.settings import InputError

VOCAB = 40
# float32 through two layers, in another order of summation
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def batch_of(tokens, segments):
    return {
        "tokens_BL": np.atleast_2d(np.array(tokens, np.int32)),
        "segments_BL": np.atleast_2d(np.array(segments, np.int32)),
    }


@pytest.fixture
def make(model_settings, draw_params):
    """make(key=value, ...) -> (random parameters, compiled apply) of such a model."""

    def made(**changes):
        settings = dataclasses.replace(model_settings, **changes)
        key = jax.random.key(0)
        params = draw_params(transformer.init_params, settings, VOCAB, key)

        def run(params, batch, **others):
            return transformer.apply(settings, params, batch, **others)

        compiled = jax.jit(run, static_argnames="adapter")
        compiled.settings = settings
        return params, compiled

    return made


def paths(tree):
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in flat}


@pytest.mark.parametrize("tied", [True, False])
def test_the_tree_is_that_of_the_docstring(make, tied):
    params, _ = make(tied=tied, depth=3)
    leaves = paths(params)
    tops = {"embedding", "layers", "final_norm"} | (set() if tied else {"output"})
    assert set(params) == tops
    assert set(params["layers"]) == {"0", "1", "2"}
    assert leaves["embedding/tokens"].shape == (VOCAB, 16)
    assert leaves["final_norm/scale"].shape == (16,)
    matrix = "embedding/tokens" if tied else "output/kernel"
    np.testing.assert_array_equal(transformer.output_matrix(params), leaves[matrix])
    assert {leaf.dtype for leaf in leaves.values()} == {jnp.dtype("float32")}


def test_fresh_weights(model_settings):
    @jax.jit
    def init(key):
        params = transformer.init_params(model_settings, VOCAB, key)
        states_BLD = transformer.apply(model_settings, params, batch_of([5, 7], [1, 1]))
        return params, states_BLD[0]

    one, same, other = (init(jax.random.key(seed)) for seed in (1, 1, 2))
    leaves, others = paths(one[0]), paths(other[0])
    for path, leaf in paths(same[0]).items():
        np.testing.assert_array_equal(leaf, leaves[path])
        drawn = path.endswith(("tokens", "kernel")) and leaf.any()
        assert (leaf != others[path]).any() == drawn, path
    up = "layers/{}/mlp/up/kernel"
    assert (leaves[up.format(0)] != leaves[up.format(1)]).any()
    assert 0.8 < leaves[up.format(0)].std() * 16**0.5 < 1.2  # variance 1 / fan-in
    assert 0.015 < leaves["embedding/tokens"].std() < 0.025
    assert not leaves["layers/1/mlp/down/kernel"].any()
    # fresh layers are the identity: what is left is the normalised embedding
    rows = np.asarray(leaves["embedding/tokens"])[[5, 7]]
    by_hand = rows / np.sqrt((rows**2).mean(axis=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(one[1], by_hand, rtol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_a_state_depends_on_its_own_segment_and_if_causal_on_what_came_before(
    make, causal
):
    params, run = make(causal=causal)
    batch = batch_of([3, 4, 5, 6, 7, 0], [1, 1, 1, 2, 2, 0])

    def states_L(tokens_VD):
        moved = params | {"embedding": {"tokens": tokens_VD}}
        return run(moved, batch)[0].sum(axis=1)

    pulls = jax.jit(jax.jacobian(states_L))(params["embedding"]["tokens"])
    seen_LL = np.abs(pulls).sum(axis=2)[:, batch["tokens_BL"][0]] > 0
    picture = (
        "x.....|xx....|xxx...|...x..|...xx.|.....x"
        if causal
        else "xxx...|xxx...|xxx...|...xx.|...xx.|.....x"
    )
    assert ["".join(".x"[int(s)] for s in row) for row in seen_LL] == picture.split("|")


@pytest.mark.parametrize("causal", [True, False])
def test_packed_is_unpacked_wherever_a_segment_stands(make, causal):
    params, run = make(causal=causal)
    a, b, c = [3, 1, 4, 1, 5], [9, 2, 6], [5, 3, 5, 8]
    rows = [
        (a + b + c + [0], [1] * 5 + [2] * 3 + [3] * 4 + [0]),
        ([0, 0, *c, *a, 7, 0], [0, 0] + [1] * 4 + [2] * 5 + [3, 0]),
        *((one + [0] * (13 - len(one)), [1] * len(one) + [0] * (13 - len(one)))
          for one in (a, b, c)),
    ]  # fmt: skip
    packed, shifted, *rest = run(params, batch_of(*zip(*rows, strict=True)))
    alone = [states[: len(one)] for one, states in zip((a, b, c), rest, strict=True)]
    np.testing.assert_allclose(packed[:12], np.concatenate(alone), **CLOSE)
    np.testing.assert_allclose(shifted[2:6], alone[2], **CLOSE)
    np.testing.assert_allclose(shifted[6:11], alone[0], **CLOSE)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_scanned_layers_are_unrolled_layers(make, dropout):
    params, unrolled = make(dropout=dropout)
    _, scanned = make(dropout=dropout, scan_layers=True)
    batch = batch_of([3, 1, 4, 1, 5, 0], [1, 1, 1, 2, 2, 0])
    key = jax.random.key(4)
    by_scan = scanned(params, batch, dropout_key=key)
    one_by_one = unrolled(params, batch, dropout_key=key)
    np.testing.assert_allclose(by_scan, one_by_one, **CLOSE)
    apart = np.abs(one_by_one - unrolled(params, batch)).max()
    assert apart > 0.1 if dropout else apart == 0


@pytest.mark.parametrize(
    ("changes", "others", "traced"),
    [
        ({}, {}, 1),
        ({"remat": "layer"}, {}, 1),
        ({"windows": (0, 2, 0)}, {}, 3),
        ({}, {"adapter": lambda path, x, y: y}, 3),
        ({}, {"read_BM": np.zeros((1, 1), np.int32)}, 2),
    ],
)
def test_layers_that_differ_in_weights_alone_are_traced_once(
    make, monkeypatch, changes, others, traced
):
    params, run = make(depth=3, **changes)
    made, block = [], transformer.Block

    def counted(settings):
        made.append(settings)
        return block(settings)

    monkeypatch.setattr(transformer, "Block", counted)
    run(params, batch_of([3, 1, 4, 1], [1, 1, 1, 1]), **others)
    assert len(made) == traced


def test_adapters_are_told_the_layer_scanned_or_not(make):
    params, run = make(scan_layers=True)
    seen = set()

    def look(path, x, y):
        seen.add(path)
        return y

    batch = batch_of([3, 1, 4], [1, 1, 1])
    adapted = run(params, batch, adapter=look)
    np.testing.assert_allclose(adapted, run(params, batch), **CLOSE)
    assert {path.rsplit("/", 1)[0] for path in seen if path.endswith("/query")} == {
        "layers/0/attention",
        "layers/1/attention",
    }


def test_bfloat16_products_stay_near_float32(make):
    params, run = make()
    _, run_short = make(dtype="bfloat16")
    batch = batch_of([3, 1, 4, 1, 5], [1] * 5)
    short = run_short(params, batch)
    assert short.dtype == jnp.bfloat16
    exact = np.asarray(run(params, batch))
    error = np.abs(np.asarray(short, np.float32) - exact).max()
    assert 0 < error < 0.05 * np.abs(exact).max()  # 8 bits, a dozen roundings


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"heads": 3},
            "config.model.width=16 is not divisible by config.model.heads=3",
        ),
        ({"heads": 16, "kv_heads": 16}, "need an even head width"),
        ({"kv_heads": 3}, "heads=4 is not divisible by config.model.kv_heads=3"),
    ],
)
def test_sizes_that_cannot_be_built_are_refused(model_settings, changes, said):
    transformer.check(model_settings)
    with pytest.raises(InputError, match=said):
        transformer.check(dataclasses.replace(model_settings, **changes))


def test_places_count_from_a_segments_first_token():
    segments_BL = jnp.array([[1, 1, 1, 2, 2, 0, 0], [0, 0, 3, 3, 3, 3, 4]])
    by_hand = [[0, 1, 2, 0, 1, 0, 1], [0, 1, 0, 1, 2, 3, 0]]
    np.testing.assert_array_equal(transformer.places_in_segment(segments_BL), by_hand)


FOREIGN = {
    "llama": {"head_width": 6, "rope_scaling": "llama3", "rope_context": 4,
              "rope_factor": 8.0, "norm_epsilon": 1e-5},
    "mistral": {"windows": (3, 3), "bias": "qkv"},
    "gemma3": {"norm_place": "both", "windows": (2, 0), "rope_local_base": 10.0,
               "rope_scaling": "linear", "rope_factor": 2.0, "mlp": "geglu",
               "embedding_scale": 4.0, "attention_scale": 0.3},
    "gpt2": {"positions": "learned", "context": 16, "norm": "layer", "bias": "all",
             "mlp": "gelu", "qk_norm": False, "kv_heads": 4},
}  # fmt: skip


@pytest.mark.parametrize("arranged", [False, True])
@pytest.mark.parametrize("jit", [jax.jit, product.jit_by_sums])
@pytest.mark.parametrize("name", FOREIGN)
def test_step_by_step_through_the_cache_is_the_whole_row(
    make, summing, name, jit, arranged
):
    """Whether params are arranged for it or not, its products sums or not."""
    params, run = make(**FOREIGN[name])
    settings = run.settings
    a, b = [3, 1, 4, 1, 5, 9, 2], [2, 7, 1, 8]
    whole = run(params, batch_of([a, b + [0] * 3], [[1] * 7, [1] * 4 + [0] * 3]))
    if arranged:
        params = caches.for_extending(settings, params)
        layer = params["layers"]["0"]
        assert not {"query", "key", "value"} & set(layer["attention"])
        assert "transposed" in layer["attention"]["qkv"]

    @jit
    def extend(params, batch, cache):
        return caches.extend(settings, params, batch, cache)

    # the shorter prompt is padded at its beginning: . . . b b | b | b
    def step(tokens, segments, positions, cache):
        batch = batch_of(tokens, segments)
        batch["positions_BL"] = np.array(positions, np.int32)
        return extend(params, batch, cache)

    cache = caches.init_cache(settings, rows=2, places=9)
    padded, segments = [0] * 3 + b[:2], [0] * 3 + [1] * 2
    places = [range(5), [0, 0, 0, 0, 1]]
    states, cache = step(
        [a[:5], padded], [[1] * 5, segments], [*map(list, places)], cache
    )
    np.testing.assert_allclose(states[0], whole[0, :5], **CLOSE)
    np.testing.assert_allclose(states[1, 3:], whole[1, :2], **CLOSE)
    for i in (0, 1):
        states, cache = step(
            [[a[5 + i]], [b[2 + i]]], [[1], [1]], [[5 + i], [2 + i]], cache
        )
        np.testing.assert_allclose(states[0, 0], whole[0, 5 + i], **CLOSE)
        np.testing.assert_allclose(states[1, 0], whole[1, 2 + i], **CLOSE)
    assert int(cache["used"]) == 7


@pytest.mark.parametrize("name", FOREIGN)
def test_other_peoples_models_are_blind_across_segments_too(make, name):
    params, run = make(**FOREIGN[name])
    a, b = [3, 1, 4, 1, 5], [9, 2, 6]
    packed, alone, other = run(
        params,
        batch_of([a + b, b + [0] * 5, a + [0] * 3],
                 [[1] * 5 + [2] * 3, [1] * 3 + [0] * 5, [1] * 5 + [0] * 3]),
    )  # fmt: skip
    np.testing.assert_allclose(packed[5:], alone[:3], **CLOSE)
    np.testing.assert_allclose(packed[:5], other[:5], **CLOSE)


def test_a_window_hides_what_is_further_back(make):
    params, run = make(windows=(2, 2))
    near, far = batch_of([3, 1, 4, 1, 5], [1] * 5), batch_of([8, 1, 4, 1, 5], [1] * 5)
    # two layers of window 2 reach two places back
    same = (run(params, near) == run(params, far)).all(axis=-1)[0]
    assert same.tolist() == [False, False, False, True, True]


def test_token_types_and_the_norm_of_an_encoder(make):
    bert = {"norm_place": "after", "norm": "layer", "embedding_norm": True,
            "token_types": 2, "causal": False, "positions": "learned", "context": 8,
            "mlp": "gelu_exact", "bias": "all", "qk_norm": False}  # fmt: skip
    params, run = make(**bert)
    assert "final_norm" not in params
    batch = batch_of([3, 1, 4], [1] * 3)
    plain = run(params, batch)
    first = run(params, batch | {"types_BL": np.zeros((1, 3), np.int32)})
    np.testing.assert_array_equal(plain, first)
    other = run(params, batch | {"types_BL": np.ones((1, 3), np.int32)})
    assert (np.abs(other - plain) > 1e-3).any()
    # a row may be longer than the context, its segments not
    row = run(params, batch_of([5, 9, 2, 6, 5, 7, 3, 1, 4], [1] * 6 + [2] * 3))
    np.testing.assert_allclose(row[:, 6:], plain, **CLOSE)


def test_logits_are_products_with_the_output_matrix(make):
    params, run = make(tied=False)
    states = run(params, batch_of([3, 1, 4], [1] * 3))
    by_hand = np.asarray(states) @ np.asarray(params["output"]["kernel"]).T
    np.testing.assert_allclose(transformer.logits_of(params, states), by_hand, **CLOSE)


READING = {
    "llama": {},
    "remat": {"remat": "layer"},
    "scan": {"scan_layers": True, "depth": 3},
    "gemma3": FOREIGN["gemma3"],
    "gpt2": FOREIGN["gpt2"],
    "bert": {"causal": False, "positions": "learned", "context": 16,
             "norm_place": "after", "norm": "layer", "bias": "all", "mlp": "gelu"},
}  # fmt: skip


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("prefix", [False, True])
def test_states_read_at_a_few_places_are_those_of_the_whole_row(make, name, prefix):
    params, run = make(**READING[name])
    settings = run.settings
    batch = batch_of(
        [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 0, 0]],
        [[1, 1, 1, 2, 2, 3, 3, 3], [1, 1, 1, 1, 2, 2, 0, 0]],
    )
    read_BM = np.array([[2, 4, 7], [3, 5, 0]])
    shape = (2, 2, 2, settings.kv_heads, settings.head_width or 4)
    before = jax.random.normal(jax.random.key(3), shape)
    weight_BMD = jax.random.normal(jax.random.key(2), (2, 3, settings.width))

    def adapter(path, x, y):
        if path.endswith("/prefix"):
            return (before[0], before[1]) if prefix else None
        # what is added must be computed at the place of what it is added to
        return y + 0.1 * x.sum(axis=-1, keepdims=True) if x.ndim == 3 else y

    given = {"adapter": adapter} if name != "scan" else {}

    def read(params):
        return run(params, batch, read_BM=read_BM, **given)

    def whole(params):
        states_BLD = run(params, batch, **given)
        return jnp.stack([row[at] for row, at in zip(states_BLD, read_BM, strict=True)])

    assert read(params).shape == (2, 3, settings.width)
    np.testing.assert_allclose(read(params), whole(params), **CLOSE)
    found, expected = (
        jax.jit(jax.grad(lambda params, f=f: (f(params) * weight_BMD).sum()))(params)
        for f in (read, whole)
    )
    for path, leaf in paths(expected).items():
        np.testing.assert_allclose(
            paths(found)[path], leaf, rtol=1e-3, atol=1e-4, err_msg=path
        )
