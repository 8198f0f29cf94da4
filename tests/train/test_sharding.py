"""Eight devices compute what one does; every leaf has a rule and every rule a leaf."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tljax.cli import pretrain
from tljax.cli.models import load_params_of, source_settings
from tljax.data.token_store import TokenStore
from tljax.model import heads, transformer
from tljax.settings import (
    InitSettings,
    InputError,
    MeshSettings,
    PretrainSettings,
    from_config,
)
from tljax.train import optimizer, sharding
from tljax.transfer.transplant import flat

ONE = MeshSettings(run=1, data=1, fsdp=1, tensor=1)
VOCAB = 40
# float32 sums over 8 devices, in another order: 1e-7 was seen in five steps
LOSS_TOLERANCE = 1e-5


def mesh(**axes):
    return dataclasses.replace(ONE, **axes)


def placement(mesh_settings, model, classifier=False):
    rules = sharding.rules(model, classifier=classifier)
    return sharding.Placement(sharding.make_mesh(mesh_settings), rules)


def shapes_of(model, classifier=False):
    def init(key):
        params = transformer.init_params(model, VOCAB, key)
        if classifier:
            params["head"] = heads.init_classifier(model.width, 3, key)
        return params

    return jax.eval_shape(init, jax.random.key(0))


@pytest.fixture
def settings(pretrain_config):
    """Untied, with biases and Muon: every rule is used."""
    pretrain_config["model"] |= {"tied": False, "bias": "all", "depth": 1}
    pretrain_config["optim"] |= {"name": "muon", "clip_norm": 1.0, "weight_decay": 0.1}
    pretrain_config["optim"] |= {"lr_peak": 0.05, "lr_muon": 0.1}
    return from_config(PretrainSettings, pretrain_config)


@functools.cache
def losses(settings, mesh_settings):
    """Nats per token of five steps, and the state after them."""
    random = np.random.default_rng(0)
    flat = (2 + random.integers(0, 6, 601) ** 2).astype(np.uint16)
    flat[::30] = 1
    store = TokenStore(flat=flat, offsets=np.arange(0, 601, 30))
    job = pretrain._Job(
        settings, placement(mesh_settings, settings.model), store, VOCAB
    )
    work, state, nats = job.work(None), job.state, []
    for _ in range(5):
        state, sums = work.advance(state, None)
        nats.append(float(sums["nats"][0] / sums["weight"][0]))
    return nats, state


@pytest.mark.parametrize("axes", [{"fsdp": 4, "data": 2}, {"tensor": 2, "data": 4}])
def test_eight_devices_give_one_device_s_losses(settings, axes):
    expected, _ = losses(settings, ONE)
    assert expected[-1] < expected[0] - 0.2  # it learns
    found, state = losses(settings, mesh(**axes))
    np.testing.assert_allclose(found, expected, rtol=LOSS_TOLERANCE)
    split = {"fsdp": 4, "tensor": 2}[next(iter(axes))]
    kernel = state.params["layers"]["0"]["mlp"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // split
    moments = jax.tree.leaves(state.optimizer)
    assert sum(leaf.addressable_shards[0].data.size < leaf.size for leaf in moments) > 6


def test_where_every_parameter_lies(settings):
    placed = placement(ONE, settings.model).params(shapes_of(settings.model))
    layer = placed["layers"]["0"]
    rows, columns = PartitionSpec("fsdp", "tensor"), PartitionSpec("tensor", "fsdp")
    by_hand = {
        "query": rows, "key": rows, "value": rows, "output": columns,
        "up": rows, "gate": rows, "down": columns,
    }  # fmt: skip
    for part in ("attention", "mlp"):
        for name, one in layer[part].items():
            if name.endswith("norm"):
                assert one["scale"].spec == PartitionSpec()
            else:
                assert one["kernel"].spec == by_hand[name]
                inward = by_hand[name] == rows
                spec = PartitionSpec("tensor") if inward else PartitionSpec()
                assert one["bias"].spec == spec
    assert placed["embedding"]["tokens"].spec == columns
    assert placed["output"]["kernel"].spec == columns
    assert placed["final_norm"]["scale"].spec == PartitionSpec()


@pytest.mark.parametrize("mlp", ["swiglu", "gelu", "relu2"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", ["none", "qkv", "attention", "mlp", "all"])
@pytest.mark.parametrize("classifier", [True, False])
def test_every_kind_of_model_has_its_rules(model_settings, mlp, tied, bias, classifier):
    model = dataclasses.replace(model_settings, mlp=mlp, tied=tied, bias=bias)
    shapes = shapes_of(model, classifier)
    placed = placement(ONE, model, classifier).params(shapes)
    assert jax.tree.structure(placed) == jax.tree.structure(shapes)


def test_a_leaf_without_a_rule_and_a_rule_without_a_leaf(model_settings):
    shapes = shapes_of(model_settings)
    placed = placement(ONE, model_settings)
    with pytest.raises(KeyError, match="no sharding rule matches head/kernel"):
        placed.params(shapes | {"head": {"kernel": shapes["final_norm"]["scale"]}})
    del shapes["embedding"]
    with pytest.raises(KeyError, match="rules match no parameter: embedding/tokens"):
        placed.params(shapes)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_moments_lie_where_their_parameters_do(model_settings, optim_settings, name):
    optim = dataclasses.replace(optim_settings, name=name)
    shapes = shapes_of(model_settings)
    placed = placement(ONE, model_settings)
    state = jax.eval_shape(optimizer.direction(optim).init, shapes)
    found = jax.tree_util.tree_flatten_with_path(placed.optimizer(state))[0]
    specs = {jax.tree_util.keystr(path): one.spec for path, one in found}

    def spec(*names):
        return [s for p, s in specs.items() if all(f"'{name}'" in p for name in names)]

    columns, rows = PartitionSpec("tensor", "fsdp"), PartitionSpec("fsdp", "tensor")
    assert spec("embedding", "tokens") == [columns] * 2  # first and second moment
    assert spec("attention_norm", "0") == [PartitionSpec()] * 2
    if name == "adamw":
        assert spec("layers", "0", "up", "kernel") == [rows] * 2
    else:
        assert spec("16x24") == [PartitionSpec(None, "fsdp", "tensor")]


def test_lifted_adds_the_axis_of_members(model_settings):
    placed = placement(ONE, model_settings)
    lifted = placed.lifted(placed.params(shapes_of(model_settings)))
    spec = lifted["embedding"]["tokens"].spec
    assert spec == PartitionSpec("run", "tensor", "fsdp")
    assert placed.batch().spec == PartitionSpec(("data", "fsdp"))
    assert placed.everywhere().spec == PartitionSpec()


def test_a_mesh_has_all_axes_and_no_more_devices_than_there_are():
    made = sharding.make_mesh(mesh(data=2, tensor=3))
    assert dict(made.shape) == {"run": 1, "data": 2, "fsdp": 1, "tensor": 3}
    with pytest.raises(InputError, match=r"asks for 16 devices \(run=1, data=4, .* 8"):
        sharding.make_mesh(mesh(data=4, fsdp=4))


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"fsdp": 3}, "model.width=16 is not divisible by mesh.fsdp=3"),
        ({"tensor": 16}, r"mlp_width=24 is not divisible by mesh.tensor=16"),
        ({"tensor": 8, "vocab": 44}, "vocab_size=44 is not divisible by .*tensor=8"),
    ],
)
def test_sizes_that_do_not_divide_over_the_mesh(model_settings, axes, said):
    vocab = axes.pop("vocab", VOCAB)
    sharding.check_sizes(model_settings, mesh(fsdp=4, tensor=2), VOCAB)
    with pytest.raises(InputError, match=said):
        sharding.check_sizes(model_settings, mesh(**axes), vocab)


def test_batches_that_do_not_divide_over_the_mesh(settings):
    sharding.check_batch(8, mesh(data=2, fsdp=4), "optim.batch")
    with pytest.raises(
        InputError, match="batch=12 is not divisible .* = 8; take a mul"
    ):
        sharding.check_batch(12, mesh(data=2, fsdp=4), "optim.batch")
    wrong = dataclasses.replace(settings, mesh=mesh(data=3))
    with pytest.raises(InputError, match=r"optim\.batch=8 is not divisible"):
        pretrain.check(wrong)
    # rows of a scoring batch are ours to choose: they divide whatever the length
    for length in (16, 24, 5000):
        corpus = dataclasses.replace(settings.corpus, length=length)
        for ways in (1, 2, 8):
            rows = pretrain.scoring_rows(corpus, mesh(data=ways))
            assert rows % ways == 0 and rows > 0
            assert rows * length <= max(8192, ways * length)


def test_a_checkpoints_leaves_lie_on_their_devices_as_they_were_read(
    settings, tiny_llama
):
    source = f"hf:{tiny_llama}"
    model = source_settings(source)
    settings = dataclasses.replace(
        settings, model=model, init=InitSettings(source=source)
    )
    where = placement(mesh(fsdp=2, tensor=2), model)
    whole = flat(load_params_of(source))
    rows = whole["embedding/tokens"].shape[0]
    params, _ = pretrain._base_params(settings, rows, jax.random.key(0), where)
    for path, leaf in flat(params).items():
        assert leaf.sharding.spec == where.spec(path), path
        np.testing.assert_array_equal(leaf, whole[path])
    spread = flat(params)["layers/0/mlp/up/kernel"]
    assert {one.data.size for one in spread.addressable_shards} == {spread.size // 4}
