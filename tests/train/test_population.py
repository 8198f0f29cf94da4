"""A member of a population is a lone run: bit for bit in turn, nearly so under vmap."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.data import batches
from tljax.data.labelled import LabelledSet
from tljax.model import heads, transformer
from tljax.objective import regularize
from tljax.objective.classification import gather, labelled_loss
from tljax.settings import MeshSettings, RegularizeSettings, TransferSettings
from tljax.train import optimizer, population, sharding, step
from tljax.transfer import lora
from tljax.transfer.method import compose, split

# float32: sums over a batch of 8 in another order, through a layer and back
CLOSE = {"rtol": 1e-4, "atol": 1e-6}
STEPS = [5, 3, 4]


def same_bits(a, b):
    return all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
    )


def items(count=40):
    random = np.random.default_rng(0)
    return LabelledSet(
        ids=tuple(map(str, range(count))),
        tokens=tuple(
            random.integers(2, 20, random.integers(2, 9)) for _ in range(count)
        ),
        labels=random.integers(0, 3, count, dtype=np.int32),
        classes=("a", "b", "c"),
        texts=("",) * count,
    )


def plan_of(labelled, seed, steps):
    """The first steps of a member's plan, padded to the longest member's."""
    plan = batches.training_plan(
        labelled, np.arange(seed, 40), batch=8, epochs=2.0, rows=3, row_length=24,
        slots=5, seed=seed,
    )  # fmt: skip
    arrays = {
        "tokens_TBL": plan.gather_TBL,
        "segments_TBL": plan.segments_TBL,
        "labels_TBM": plan.labels_TBM,
        "weights_TBM": plan.weights_TBM,
    }
    until = (np.arange(max(STEPS)) < steps)[:, None, None]
    return {name: a[: max(STEPS)] * until for name, a in arrays.items()}


def take(flat, plan, index):
    batch = {name.replace("_T", "_"): rows[index] for name, rows in plan.items()}
    return batch | {"tokens_BL": gather(flat, batch["tokens_BL"]), "frozen": {}}


@pytest.fixture(scope="module")
def crew(model_settings, optim_settings, draw_params):
    """(train_step, flat tokens, [state, plan, hparams] of three members)."""

    def init(key):
        params = transformer.init_params(model_settings, 20, key)
        return params | {"head": heads.init_classifier(16, 3, key)}

    model_settings = dataclasses.replace(model_settings, depth=1)
    labelled = items()
    states, plans, rates = [], [], []
    for i, steps in enumerate(STEPS):
        optim = dataclasses.replace(
            optim_settings, lr_peak=0.01 * (i + 1), warmup=0.3, cooldown=0.5
        )
        params = draw_params(init, jax.random.key(0), seed=i)
        states.append(step.init_state(params, optim))
        plans.append(plan_of(labelled, i, steps))
        rates.append(optimizer.hyperparameters(optim, steps, seed=i))
    loss = labelled_loss(model_settings, "mean", TransferSettings())
    train_step = step.make_train_step(loss, optim_settings)
    stacked = [population.stack(trees) for trees in (states, plans, rates)]
    return train_step, batches.flat_tokens(labelled), stacked


def lifted(train_step, mode):
    rounds = population.make_train_rounds(train_step, take)
    return jax.jit(population.lift(rounds, mode, shared=1))


@pytest.fixture(scope="module")
def in_turn(crew):
    """The population's program, compiled once for the tests that run it."""
    return lifted(crew[0], "turn")


def test_a_member_in_turn_is_the_lone_run_bit_for_bit(crew, in_turn):
    _, flat, (state, plan, hparams) = crew
    together = in_turn(flat, state, plan, hparams, np.int32(STEPS))
    np.testing.assert_array_equal(together[0].step, STEPS)
    for i, steps in enumerate(STEPS):
        one = jax.tree.map(lambda x, i=i: x[i : i + 1], (state, plan, hparams))
        lone = in_turn(flat, *one, np.int32([steps]))
        mine = jax.tree.map(lambda x, i=i: x[i : i + 1], together)
        assert same_bits(mine, lone)
        assert not same_bits(mine[0].params, one[0].params)


@pytest.fixture
def regularised(model_settings, optim_settings, draw_params):
    """(rounds, data, [state, plan, hparams] a member) with every regulariser on."""

    def init(key):
        params = transformer.init_params(model_settings, 20, key)
        return params | {"head": heads.init_classifier(16, 3, key)}

    model_settings = dataclasses.replace(model_settings, depth=1, dropout=0.1)
    labelled, trees = items(), []
    for i, strength in enumerate((0.05, 0.2)):
        on = RegularizeSettings(
            label_smoothing=strength, l2_start=strength, mixout=strength,
            rdrop=strength, neftune=strength, lm_weight=strength, ema=strength,
            replay=strength, replay_every=2, replay_source="text",
        )  # fmt: skip
        model = dataclasses.replace(model_settings, dropout=strength)
        params = draw_params(init, jax.random.key(0), seed=i)
        rates = optimizer.hyperparameters(optim_settings, 2, seed=i)
        rates |= regularize.hyperparameters(on, model)
        state = step.init_state(params, optim_settings, on)
        trees.append((state, plan_of(labelled, i, 2), rates))
    start = draw_params(init, jax.random.key(0), seed=9)
    del start["head"]
    loss = labelled_loss(model_settings, "mean", TransferSettings(), on)
    rounds = population.make_train_rounds(
        step.make_train_step(loss, optim_settings, on),
        lambda data, *args: take(data["flat"], *args) | data["shared"],
    )
    bank = {
        name: np.random.default_rng(i).integers(1, 20, (5, 24))
        for i, name in enumerate(("tokens_BL", "targets_BL", "segments_BL"))
    }
    bank["segments_BL"].sort(axis=1)
    shared = {"start": start, "replay": bank}
    data = {"flat": batches.flat_tokens(labelled), "shared": shared}
    return rounds, data, trees


def test_members_that_differ_in_regularisers_are_their_lone_runs(regularised):
    """Bit for bit in turn; under vmap their first step is nearly so."""
    rounds, data, trees = regularised
    advance = jax.jit(population.lift(rounds, "turn", shared=1))
    stacked = population.stack(trees)
    together = advance(data, *stacked, np.int32([2, 2]))
    for i, own in enumerate(trees):
        lone = advance(data, *population.stack([own]), np.int32([2]))
        mine = jax.tree.map(lambda x, i=i: x[i : i + 1], together)
        assert same_bits(mine, lone)
        assert not same_bits(lone[0].params, lone[0].average)
    vmapped = jax.jit(population.lift(rounds, "vmap", shared=1))
    first = np.ones(2, np.int32)
    ours, theirs = vmapped(data, *stacked, first), advance(data, *stacked, first)
    for one, other in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(one, other, **CLOSE)
    assert len(np.unique(ours[1]["nats"])) == 2


def test_members_that_differ_in_their_adapters_numbers_are_their_lone_runs(
    optim_settings,
):
    path = "layers/0/attention/query"
    kernel = np.random.default_rng(0).standard_normal((6, 4), np.float32)
    params = {"layers": {"0": {"attention": {"query": {"kernel": kernel}}}}}
    numbers = ((4.0, 0.1), (16.0, 0.1), (16.0, 0.5))
    settings = [
        TransferSettings("lora", rank=2, alpha=alpha, dropout=dropout)
        for alpha, dropout in numbers
    ]
    moving, frozen = split(params, settings[0], jax.random.key(1))
    state = step.init_state(moving, optim_settings)
    trees = [
        (
            state,
            optimizer.hyperparameters(optim_settings, 2, seed=0)
            | lora.hyperparameters(transfer),
        )
        for transfer in settings
    ]

    def advance(transfer, members):
        def loss(moving, batch, key):
            params, adapter = compose(moving, frozen, transfer, key, batch["hparams"])
            y = adapter(path, batch["x"], batch["x"] @ params["layers"]["0"]
                        ["attention"]["query"]["kernel"])  # fmt: skip
            return (y**2).sum(), {"weight": jnp.float32(1)}

        train_step = step.make_train_step(loss, optim_settings)
        rounds = population.make_train_rounds(train_step, lambda x, plan, t: {"x": x})
        run = jax.jit(population.lift(rounds, "turn", shared=1))
        state, hparams = population.stack(members)
        count = len(members)
        return run(jnp.ones((5, 6)), state, jnp.zeros(count), hparams,
                   np.full(count, 3, np.int32))  # fmt: skip

    together = advance(settings[0], trees)
    ends = [population.member(together[0].params, i) for i in range(3)]
    assert not same_bits(ends[0], ends[1]) and not same_bits(ends[1], ends[2])
    for i in range(3):
        mine = jax.tree.map(lambda x, i=i: x[i : i + 1], together)
        assert same_bits(mine, advance(settings[i], trees[i : i + 1]))


def test_a_vmapped_member_takes_the_lone_run_s_first_step(crew, in_turn):
    train_step, flat, (state, plan, hparams) = crew
    first = np.ones(3, np.int32)
    states, sums = lifted(train_step, "vmap")(flat, state, plan, hparams, first)
    turned, expected = in_turn(flat, state, plan, hparams, first)
    assert set(sums) == {"nats", "weight", "correct", "gradient_norm", "steps"}
    for name, values in sums.items():
        np.testing.assert_allclose(values, expected[name], **CLOSE)
    assert len(np.unique(sums["nats"])) == 3
    # Adam's first moments after one step are the gradients
    for ours, theirs in zip(
        *(jax.tree.leaves(s.optimizer) for s in (states, turned)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, **CLOSE)


def linear(params, batch, key):
    """A loss that compiles at once: squares, with noise that depends on the step."""
    error = params["layers"]["0"] - batch["x"] - jax.random.normal(key, (4,))
    return (error**2).sum(), {"weight": batch["x"].sum() ** 0}


@pytest.fixture
def line(optim_settings):
    train_step = step.make_train_step(linear, optim_settings)
    params = {"layers": {"0": jnp.arange(4.0)}}
    states = [step.init_state(params, optim_settings)] * 3
    hparams = [
        optimizer.hyperparameters(optim_settings, steps, seed=i)
        for i, steps in enumerate(STEPS)
    ]
    data = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    plan = np.random.default_rng(1).integers(0, 9, (3, 5))
    advance = population.make_train_rounds(
        train_step, lambda data, plan, t: {"x": data[plan[t]]}
    )
    return train_step, advance, data, population.stack(states), plan, hparams


def test_members_in_turn_with_rates_of_their_own_are_lone_runs(optim_settings):
    """Whatever a member may differ in, and a schedule in which layers wait."""
    optim = dataclasses.replace(
        optim_settings, schedule="cosine", unfreeze="chain", bias_correction=False
    )
    layer = {"q": {"a": jnp.ones(4), "b": jnp.full(4, 2.0)}}
    params = {"layers": {"0": layer, "1": layer}, "head": {"bias": jnp.ones(4)}}

    def loss(params, batch, key):
        noise = jax.random.normal(key, (4,))
        leaves = jax.tree.leaves(params)
        return sum(((leaf - noise) ** 2).sum() for leaf in leaves), {
            "weight": jnp.ones(())
        }

    advance = population.make_train_rounds(
        step.make_train_step(loss, optim), lambda data, plan, t: {}
    )
    run = jax.jit(population.lift(advance, "turn", shared=1))
    state = population.stack([step.init_state(params, optim)] * 3)
    hparams = population.stack(
        [
            optimizer.hyperparameters(
                dataclasses.replace(optim, lora_plus=plus, lr_peak=rate, warmup=0.2),
                steps,
                seed=0,
            )
            for plus, rate, steps in ((1.0, 0.1, 5), (4.0, 0.1, 3), (16.0, 0.2, 4))
        ]
    )
    plan, until = np.zeros((3, 5)), np.int32(STEPS)
    together = run(0, state, plan, hparams, until)
    for i in range(3):
        one = jax.tree.map(
            lambda x, i=i: x[i : i + 1], (state, plan, hparams, until, together)
        )
        assert same_bits(run(0, *one[:4]), one[4])
    assert not same_bits(*(population.member(together[0].params, i) for i in (0, 1)))


@pytest.mark.parametrize("mode", ["turn", "vmap"])
def test_rounds_are_steps_and_whoever_has_ended_stays(line, mode):
    _, advance, data, state, plan, hparams = line
    run = jax.jit(population.lift(advance, mode, shared=1))
    at_once, all_sums = run(
        data, state, plan, population.stack(hparams), np.int32(STEPS)
    )
    total = {}
    for t in range(max(STEPS)):
        until = np.minimum(t + 1, STEPS)
        before = state
        state, sums = run(data, state, plan, population.stack(hparams), np.int32(until))
        np.testing.assert_array_equal(sums["steps"], [t < steps for steps in STEPS])
        total = {name: total.get(name, 0) + sums[name] for name in sums}
        for i, steps in enumerate(STEPS):
            was, now = (population.member(s, i) for s in (before, state))
            assert same_bits(was, now) == (t >= steps)
    assert same_bits(state, at_once)
    for name, values in total.items():
        np.testing.assert_allclose(values, all_sums[name], rtol=1e-6)


def test_rounds_are_the_plain_loop(line):
    train_step, advance, data, state, plan, hparams = line
    run = jax.jit(population.lift(advance, "turn", shared=1))
    rounds, _ = run(data, state, plan, population.stack(hparams), np.int32(STEPS))
    one_step = jax.jit(train_step)
    for i, steps in enumerate(STEPS):
        lone = population.member(state, i)
        for t in range(steps):
            lone, _ = one_step(lone, {"x": data[plan[i, t]]}, hparams[i])
        for a, b in zip(
            *map(jax.tree.leaves, (population.member(rounds, i), lone)), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.fixture
def devices():
    """devices(run) -> a mesh of so many devices."""
    return lambda run: sharding.make_mesh(
        MeshSettings(run=run, data=1, fsdp=1, tensor=1)
    )


@pytest.mark.parametrize("mode", ["turn", "vmap"])
@pytest.mark.parametrize("run", [2, 8])
def test_members_on_several_devices_are_those_of_one(line, devices, mode, run):
    """Three on two devices of two, and of one on eight; the rest take no step."""
    _, advance, data, state, plan, hparams = line
    results = []
    for mesh in (devices(1), devices(run)):
        lifted = population.lift(advance, mode, shared=1)
        spread = jax.jit(population.spread(lifted, mesh, shared=1), donate_argnums=1)
        trees = [
            (population.member(state, i), jnp.asarray(plan[i]), hparams[i])
            for i in range(3)
        ]
        own = population.assemble(iter(trees), mesh)
        until = np.int32(population.padded(STEPS, mesh, fill=0))
        placed = population.copied(data, mesh)
        results.append(spread(placed, *own, until))
    alone, together = results
    steps = np.asarray(together[0].step)
    np.testing.assert_array_equal(steps[:3], STEPS)
    assert not steps[3:].any() and len(steps) == {2: 4, 8: 8}[run]
    leaf = together[0].params["layers"]["0"]
    assert leaf.addressable_shards[0].data.shape == (len(steps) // run, 4)
    assert len(leaf.sharding.device_set) == run
    for i in range(3):
        mine = population.member(together, i, devices(run))
        assert jax.tree.leaves(mine)[0].devices() == {jax.devices()[0]}
        assert same_bits(mine, population.member(alone, i))


@pytest.mark.parametrize("mode", ["turn", "vmap"])
def test_lifting_by_hand(mode):
    run = population.lift(lambda a, b, c: (a + b, b * c), mode, shared=1)
    found = run(jnp.float32(10), jnp.arange(3.0), jnp.arange(3.0))
    np.testing.assert_array_equal(found[0], [10, 11, 12])
    np.testing.assert_array_equal(found[1], [0, 1, 4])


def test_members_are_stacked_and_taken_apart():
    trees = [
        {"a": jnp.full((2,), float(i)), "b": {"c": jnp.int32(i)}} for i in range(3)
    ]
    stacked = population.stack(trees)
    assert jax.tree.map(jnp.shape, stacked) == {"a": (3, 2), "b": {"c": (3,)}}
    assert all(same_bits(population.member(stacked, i), trees[i]) for i in range(3))


@pytest.mark.parametrize(
    ("backend", "members", "mode"),
    [("cpu", 3, "turn"), ("gpu", 3, "vmap"), ("gpu", 1, "turn")],
)
def test_small_products_fill_a_cpu_but_no_accelerator(
    monkeypatch, backend, members, mode
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert population.choose_mode(members) == mode


def test_a_step_is_traced_once(line):
    train_step, _, data, state, plan, hparams = line
    traced = []

    def counted(*args):
        traced.append(args)
        return train_step(*args)

    advance = population.make_train_rounds(
        counted, lambda data, plan, t: {"x": data[plan[t]]}
    )
    run = jax.jit(population.lift(advance, "turn", shared=1))
    run.lower(data, state, plan, population.stack(hparams), np.int32(STEPS))
    assert len(traced) == 1
