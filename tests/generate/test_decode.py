"""Decoding through the cache is reading the whole text again for every token."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.generate import decode, programs
from tljax.generate.decode import Generator, bucket
from tljax.generate.programs import read
from tljax.generate.sampling import Sampling, sample
from tljax.model import product, transformer
from tljax.settings import InputError

VOCAB = 40
GREEDY = Sampling(temperature=0.0)
WARM = Sampling(1.3, top_k=30, top_p=0.95, min_p=0.01, repetition_penalty=2.0)
ROOM = 64  # places of the rows that the reference reads
KINDS = {
    "ours": {},
    "llama": {"head_width": 6, "rope_scaling": "llama3", "rope_context": 4,
              "rope_factor": 8.0, "bias": "qkv"},
    "gemma3": {"norm_place": "both", "windows": (2, 0), "rope_local_base": 10.0,
               "rope_scaling": "linear", "rope_factor": 2.0, "mlp": "geglu",
               "embedding_scale": 4.0, "attention_scale": 0.3,
               "tied": True},
    "gpt2": {"positions": "learned", "context": 25, "norm": "layer", "bias": "all",
             "mlp": "gelu", "qk_norm": False, "kv_heads": 4},
}  # fmt: skip
SHORT, MIDDLE, LONG = [7], [3, 1, 4, 1, 5, 9], [(5 * i) % 37 + 1 for i in range(13)]
PROMPTS = (SHORT, MIDDLE, LONG)
SEEDS = (11, 12, 13)


@pytest.fixture
def make(model_settings, draw_params):
    """make(end_ids=..., key=value, ...) -> a generator of such a random model."""

    def made(end_ids=(), **changes):
        # not tied: random tied models repeat themselves
        settings = dataclasses.replace(model_settings, **{"tied": False} | changes)
        key = jax.random.key(0)
        params = draw_params(transformer.init_params, settings, VOCAB, key)
        generator = Generator(settings, params, end_ids=end_ids)
        generator.whole = params
        return generator

    return made


@functools.partial(jax.jit, static_argnames="settings")
def whole_logits(settings, params, tokens_BL, length):
    """Logits behind the first `length` tokens of one row, without any cache."""
    segments_BL = (jnp.arange(tokens_BL.shape[1]) < length).astype(jnp.int32)[None]
    batch = {"tokens_BL": tokens_BL, "segments_BL": segments_BL}
    states_BLD = transformer.apply(settings, params, batch)
    last_BLD = jax.lax.dynamic_slice_in_dim(states_BLD, length - 1, 1, axis=1)
    return transformer.logits_of(params, last_BLD)[:, 0]


def reference(generator, prompt, max_new, sampling, seed):
    """What `generate` promises, token by token, in the words of its docstring."""
    settings = generator._settings
    text = list(prompt)
    for step in range(max_new):
        room = min(ROOM, settings.context or ROOM)
        tokens_BL = np.array([text + [0] * (room - len(text))], np.int32)
        logits_BV = whole_logits(settings, generator.whole, tokens_BL, len(text))
        seen_BV = np.isin(np.arange(VOCAB), text)[None]
        key = jax.random.fold_in(jax.random.key(seed), step)
        text.append(int(_sample(logits_BV, seen_BV, key[None], sampling)[0]))
    return text[len(prompt) :]


_sample = jax.jit(sample)


@pytest.mark.parametrize("faster", ["bfloat16", "float32"])
def test_auto_is_what_few_rows_are_faster_in(make, monkeypatch, faster):
    def asked(*, few_rows):
        return few_rows == (faster == "bfloat16")

    monkeypatch.setattr(product, "bfloat16_is_faster", asked)
    qkv = make(dtype="auto")._params["layers"]["0"]["attention"]["qkv"]
    assert qkv["transposed"].dtype == faster


def write(generator, prompts=PROMPTS, max_new=12, sampling=GREEDY, seeds=None, **more):
    seeds = SEEDS[: len(prompts)] if seeds is None else seeds
    texts = generator.generate(
        [np.array(one) for one in prompts],
        max_new=max_new,
        sampling=sampling,
        seeds=seeds,
        **more,
    )
    assert all(text.dtype == np.int32 for text in texts)
    return [text.tolist() for text in texts]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_through_the_cache_is_each_whole_text_read_again(make, kind):
    generator = make(**KINDS[kind])
    for sampling in (GREEDY, WARM):
        texts = write(generator, sampling=sampling)
        for text, prompt, seed in zip(texts, PROMPTS, SEEDS, strict=True):
            assert text == reference(generator, prompt, 12, sampling, seed)
    assert all(len(set(text)) > 4 for text in texts)  # nothing that repeats itself


@pytest.mark.parametrize("kind", ["gemma3", "gpt2"])
def test_logits_step_by_step_are_those_of_the_whole_row(make, kind):
    generator = make(**KINDS[kind])
    settings = generator._settings
    tokens_BL = np.array([LONG, LONG[::-1]], np.int32)
    segments_BL = np.ones_like(tokens_BL)
    segments_BL[1, 5:] = 2  # two texts in a row
    stepwise = read(settings, generator.whole, tokens_BL, segments_BL)
    batch = {"tokens_BL": tokens_BL, "segments_BL": segments_BL}
    states = jax.jit(functools.partial(transformer.apply, settings))(
        generator.whole, batch
    )
    whole = transformer.logits_of(generator.whole, states)
    assert stepwise.dtype == np.float32 and stepwise.shape == (2, 13, VOCAB)
    # float32 in another order of summation, logits of about 10
    np.testing.assert_allclose(stepwise, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampling", [GREEDY, WARM])
def test_a_row_is_the_same_alone_and_among_others(make, sampling):
    generator = make()
    together = write(generator, sampling=sampling)
    for text, prompt, seed in zip(together, PROMPTS, SEEDS, strict=True):
        assert [text] == write(generator, [prompt], sampling=sampling, seeds=[seed])


def test_so_it_is_beside_a_long_prompt_that_is_read_in_pieces(make, monkeypatch):
    generator = make()
    monkeypatch.setattr(programs, "PIECE", 32)
    shapes = []
    extend = programs.extend

    def watched(settings, params, batch, cache):
        shapes.append(batch["tokens_BL"].shape)
        return extend(settings, params, batch, cache)

    monkeypatch.setattr(programs, "extend", watched)
    longer = [(3 * i) % 39 for i in range(40)]
    texts = write(generator, [longer, MIDDLE], sampling=WARM)
    assert {shape for shape in shapes if shape[1] > 1} == {(2, 16)}  # of 48 places
    for text, prompt, seed in zip(texts, [longer, MIDDLE], SEEDS, strict=False):
        assert text == reference(generator, prompt, 12, WARM, seed)


@pytest.mark.parametrize("sampling", [GREEDY, WARM])
def test_streamed_is_not_streamed(make, sampling):
    generator = make()
    texts = write(generator, max_new=17, sampling=sampling)
    heard = []
    streamed = write(
        generator,
        max_new=17,
        sampling=sampling,
        on_token=lambda row, token: heard.append((row, token)),
    )
    assert streamed == texts
    assert heard == [
        (row, text[i]) for i in range(17) for row, text in enumerate(texts)
    ]


def test_a_listener_stops_its_row_and_no_other(make):
    generator = make()
    texts = write(generator, max_new=17)
    heard = {0: [], 1: [], 2: []}

    def listen(row, token):
        heard[row].append(token)
        return row != 1 and len(heard[row]) == (1, None, 7)[row]

    stopped = write(generator, max_new=17, on_token=listen)
    assert stopped == [texts[0][:1], texts[1], texts[2][:7]]
    assert [heard[row] for row in range(3)] == stopped


def test_when_all_rows_are_stopped_nothing_more_is_computed(make, monkeypatch):
    generator = make()
    limits = []
    advance = programs.advance

    def watched(*given):
        limits.append(int(given[-1]))
        return advance(*given)

    monkeypatch.setattr(programs, "advance", watched)
    monkeypatch.setattr(decode, "_STREAMED_CHUNK", 4)
    write(generator, max_new=17, on_token=lambda row, token: True)
    assert limits == []
    write(generator, max_new=17, on_token=lambda row, token: False)
    assert limits == [2, 4, 8, 12, 16, 17]
    limits.clear()
    write(generator, max_new=17)
    assert limits == [17]
    limits.clear()
    monkeypatch.setattr(decode, "_CHUNK", 5)
    write(generator, max_new=17)
    assert limits == [6, 11, 16, 17]


def test_end_tokens_end_a_row_and_are_not_part_of_it(make):
    free = write(make(), max_new=17, sampling=WARM)
    ends = (free[0][0], free[1][5])
    generator = make(end_ids=ends)

    def cut(text):
        ends_at = [i for i, token in enumerate(text) if token in ends]
        return text[: ends_at[0]] if ends_at else text

    texts = write(generator, max_new=17, sampling=WARM)
    assert texts == [cut(text) for text in free]
    assert texts[0] == [] and any(0 < len(text) < 17 for text in texts)
    heard = []
    write(
        generator,
        max_new=17,
        sampling=WARM,
        on_token=lambda row, token: heard.append(token),
    )
    assert not set(heard) & set(ends)


def test_the_loop_ends_with_the_last_row(make, monkeypatch):
    free = write(make(), [MIDDLE], max_new=17)
    generator = make(end_ids=[free[0][3]])
    drawn = []
    advance = programs.advance

    def watched(*given):
        state = advance(*given)
        drawn.append(int(state.drawn))
        return state

    monkeypatch.setattr(programs, "advance", watched)
    (text,) = write(generator, [MIDDLE], max_new=17)
    assert text == free[0][: free[0].index(free[0][3])]
    assert drawn == [len(text) + 1]


def test_fewer_new_tokens_are_the_beginning_of_more(make):
    generator = make()
    texts = write(generator, max_new=17, sampling=WARM)
    for max_new in (1, 2, 7):
        fewer = write(generator, max_new=max_new, sampling=WARM)
        assert fewer == [text[:max_new] for text in texts]


def test_a_long_text_takes_more_than_one_look(make, monkeypatch):
    generator = make()
    texts = write(generator, max_new=17)
    monkeypatch.setattr(decode, "_CHUNK", 3)
    assert write(generator, max_new=17) == texts


def test_the_seed_decides(make):
    generator = make()
    one, same, other = write(generator, [MIDDLE] * 3, sampling=WARM, seeds=[1, 1, 2])
    assert one == same != other
    top = write(generator, [MIDDLE], sampling=WARM, seeds=[2**32 - 1])
    assert top == [reference(generator, MIDDLE, 12, WARM, 2**32 - 1)] and top != [one]


def test_lengths_within_a_bucket_share_their_programs(make):
    generator = make()
    sizes = []

    def compiled():
        advance = programs.advance.program()
        return [f._cache_size() for f in (programs.start, advance)]

    given = [
        ([MIDDLE], 7, GREEDY),
        ([SHORT], 17, GREEDY),
        ([LONG], 13, WARM),
        ([LONG[:9]], 4, Sampling(1)),
    ]
    for prompts, max_new, sampling in given:
        write(generator, prompts, max_new, sampling)
        write(generator, prompts, max_new, sampling, on_token=lambda row, token: False)
        sizes.append(compiled())
    assert sizes == [sizes[0]] * 4
    write(generator, [MIDDLE] * 3, 7, GREEDY)
    four = compiled()
    write(generator, [MIDDLE] * 4, 7, GREEDY, seeds=[1, 2, 3, 4])
    assert compiled() == four
    # another generator of the same model, e.g. with newer weights
    write(make(), [MIDDLE], 7)
    assert compiled() == four


def test_a_lone_bfloat16_row_on_a_cpu_has_company(make):
    for dtype, rows in (("float32", [1, 2, 4, 4, 8]), ("bfloat16", [2, 2, 4, 4, 8])):
        batch = make(dtype=dtype)._batch
        found = [batch([np.array(MIDDLE)] * n)["tokens_BL"] for n in range(1, 6)]
        assert [tokens_BL.shape[0] for tokens_BL in found] == rows


def test_buckets():
    sizes = [1, 32, 33, 48, 49, 64, 65, 96, 97, 129, 192, 193, 3000, 3073]
    assert [bucket(size) for size in sizes] == [
        32, 32, 48, 48, 64, 64, 96, 96, 128, 192, 192, 256, 3072, 4096,
    ]  # fmt: skip


def test_weights_are_cast_once_and_change_no_state(make):
    every_leaf = {"norm_place": "both", "norm": "layer", "bias": "all",
                  "positions": "learned", "context": 16, "embedding_norm": True,
                  "token_types": 2}  # fmt: skip
    generator = make(dtype="bfloat16", **every_leaf)
    flat = jax.tree_util.tree_flatten_with_path(generator._params)[0]
    for path, leaf in flat:
        norm = any(key.key.endswith("norm") for key in path)
        assert leaf.dtype == (jnp.float32 if norm else jnp.bfloat16), path
    tokens_BL = np.array([LONG], np.int32)
    batch = {"tokens_BL": tokens_BL, "segments_BL": np.ones_like(tokens_BL)}

    @jax.jit
    def logits(params):
        states_BLD = transformer.apply(generator._settings, params, batch)
        return transformer.logits_of(params, states_BLD)

    np.testing.assert_array_equal(logits(generator._params), logits(generator.whole))


def test_no_prompts_no_texts(make):
    assert write(make(), []) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompts": [MIDDLE, []], "seeds": [1, 2]}, "prompts[1] is empty"),
        ({"prompts": [[1, 40]]}, "prompts[0] has the id 40; the model has 0 to 39"),
        ({"prompts": [[-1]]}, "prompts[0] has the id -1"),
        ({"prompts": [[1.5]]}, "prompts[0] has numbers of float64"),
        ({"prompts": [[[1]]]}, "prompts[0] has shape (1, 1)"),
        ({"prompts": [LONG * 2]}, "prompts[0] has 26 tokens; prompt and answer together"
         " may have 25"),
        ({"prompts": [(LONG * 2)[:25]]}, "prompts[0] has 25 tokens"),
        ({"prompts": [LONG], "max_new": 13}, "prompts[0] has 13 tokens, which with"
         " 13 new ones exceed the model's 25; set max_new to at most 12"),
        ({"max_new": 0}, "max_new is 0; it must be at least 1"),
        ({"sampling": Sampling(-1.0)}, "sampling.temperature is -1.0"),
        ({"seeds": [1]}, "1 seeds for 3 prompts"),
        ({"seeds": [1, 2, -1]}, "a seed is -1; it must be a whole number in [0, 42949"),
        ({"seeds": [1, 2, 2**32]}, "a seed is 4294967296"),
        ({"seeds": [1, 2, 0.5]}, "a seed is 0.5"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused(make, changes, said):
    generator = make(**KINDS["gpt2"])
    with pytest.raises(InputError, match=re.escape(said)):
        write(generator, **changes)


def test_models_and_end_tokens_that_do_not_fit_are_refused(make):
    with pytest.raises(InputError, match="causal=False cannot write"):
        make(causal=False)
    with pytest.raises(InputError, match=re.escape("end_ids has the id 40")):
        make(end_ids=[1, 40])
