"""Members of a fine-tuning population: what they may differ in, what they share."""

import dataclasses
import json
import pathlib
import re
import signal

import jax
import numpy as np
import pytest

from tljax.cli import finetune
from tljax.cli.crew import Crew
from tljax.cli.main import main
from tljax.cli.members import Member, mesh_of
from tljax.cli.models import load_params_of, source_settings
from tljax.evaluate import classification
from tljax.evaluate.features import pooled_features
from tljax.evaluate.probe import fit_probe
from tljax.settings import (
    FinetuneSettings,
    HeadSettings,
    InitSettings,
    InputError,
    RegularizeSettings,
    TransferSettings,
    from_config,
)
from tljax.train import loop, memory, population
from tljax.train.record import final_record, read_metrics
from tljax.transfer.transplant import flat


@pytest.fixture
def member(finetune_config, tmp_path):
    """A run on twenty items of two classes."""
    (tmp_path / "run").mkdir()
    rows = [f"some words of number {i},{'ny'[i % 2]}" for i in range(20)]
    (tmp_path / "items.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    finetune_config["task"]["source"] = (
        f"csv:{tmp_path}/items.csv?text=text&label=label"
    )
    settings = from_config(FinetuneSettings, finetune_config)
    return Member(settings, tmp_path / "run")


def changed(member, **settings):
    return dataclasses.replace(
        member, settings=dataclasses.replace(member.settings, **settings)
    )


def test_less_than_one_item_is_no_training(member):
    assert Crew([member]).data.plans[member.folder].steps > 0
    with pytest.raises(InputError, match=r"epochs=0\.01 of 14 items .* at least 0\.07"):
        Crew([changed(member, epochs=0.01)])
    with pytest.raises(InputError, match=r"config\.epochs is 0"):
        finetune.check(changed(member, epochs=0.0).settings)


@pytest.mark.parametrize(
    ("on", "changes", "said"),
    [
        ({"l2_start": 0.1}, {"init": InitSettings("")}, "l2_start=0.1: .*source is em"),
        ({"wise": 0.5}, {"transfer": TransferSettings("lora")}, "'lora' the weights"),
        ({"mixout": 0.5}, {"transfer": TransferSettings("head")}, "'head' the weights"),
        ({"mixout": 0.5}, {"transfer": TransferSettings("full", 2)}, "every layer is"),
        ({"mixout": 0.5}, {"transfer": TransferSettings("norms")}, "moves none; leave"),
        (
            {"mixout": 0.5},
            {"transfer": TransferSettings("rule", targets=r".*norm/scale")},
            "moves none; leave",
        ),
        ({"replay": 1.0}, {"transfer": TransferSettings("prompt")}, "taken for words"),
        ({"rdrop": 1.0}, {}, "rdrop=1.0: both passes would be one"),
        ({"neftune": 5.0}, {"transfer": TransferSettings("full", 1)}, "tokens' place"),
        (
            {"lm_weight": 0.5},
            {"transfer": TransferSettings("full", 1)},
            "tokens' place",
        ),
        ({"replay": 1.0}, {"transfer": TransferSettings("head")}, "tokens' place"),
        ({"lm_weight": 0.5}, {"model": {"causal": False}}, "sees the next word"),
        ({"replay": 1.0}, {"model": {"tied": False}}, "keeps no output"),
    ],
)
def test_a_regulariser_that_nothing_would_read_is_refused(member, on, changes, said):
    settings = changed(member, init=InitSettings("lm")).settings
    if "model" in changes:
        changes = {"model": dataclasses.replace(settings.model, **changes["model"])}
    settings = dataclasses.replace(settings, **changes)
    finetune.check(settings)
    on = RegularizeSettings(**on)
    with pytest.raises(InputError, match=r"^config\.regularize\..*" + said):
        finetune.check(dataclasses.replace(settings, regularize=on))


def test_a_regularised_member_ends_as_the_lone_run(
    finetune_arguments, language_run, reviews, tmp_path
):
    text = f"replay_source=csv:{reviews}?text=review"
    on = ("ema=0.5", "wise=0.5", "l2_start=0.1", "mixout=0.2", "ewc=0.1", text)
    arguments = [*finetune_arguments, *(f"--config.regularize.{one}" for one in on)]
    start = f"--config.init.source={language_run}"
    assert main(["train", *arguments, start, f"--workdir={tmp_path / 'lone'}"]) == 0
    config = json.loads((tmp_path / "lone" / "config.json").read_text())
    lone = Member(from_config(FinetuneSettings, config), tmp_path / "b")
    others = {"ema": 0.9, "wise": 1.0, "l2_start": 1.0, "mixout": 0.4, "ewc": 1.0}
    on = dataclasses.replace(lone.settings.regularize, **others)
    other = changed(lone, regularize=on)
    members = [dataclasses.replace(other, folder=tmp_path / "a"), lone]
    finetune.finetune(members, populations=tmp_path / "populations")
    last = [
        read_metrics(tmp_path / name)[-1]["params_sha256"]
        for name in ("a", "b", "lone")
    ]
    assert last[1] == last[2] != last[0]
    # what is kept is scored, not what was validated last
    crew, kept = Crew([lone]), load_params_of(str(tmp_path / "lone"))
    path = tmp_path / "lone" / "predictions" / "validation.jsonl"
    rows = [json.loads(line)["probabilities"] for line in path.read_text().splitlines()]
    found = crew.scorer.probabilities(kept, crew.scoring["validation"], len(rows))
    np.testing.assert_allclose([list(one.values()) for one in rows], found, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"wise": 0}, r"wise is 0"),
        ({"replay": 0.5}, r"replay=0\.5 needs config\.regularize\.replay_source"),
        ({"ewc": 2}, r"ewc=2\.0 needs config\.regularize\.replay_source"),
        ({"replay_every": 2}, r"replay_every=2 is read where .*replay is above 0"),
        ({"replay_source": "a"}, r"replay_source='a' is read where .*ewc is above"),
    ],
)
def test_half_a_setting_is_refused(config, said):
    with pytest.raises(InputError, match=r"^config\.regularize\." + said):
        from_config(RegularizeSettings, config, "config.regularize")


def test_layers_above_frozen_ones_begin_as_the_source_s(member, tiny_llama, tmp_path):
    source = f"hf:{tiny_llama}"
    theirs = load_params_of(source)
    transfer = TransferSettings(frozen_layers=1)
    tokenizer = dataclasses.replace(member.settings.tokenizer, source="")
    for one in (transfer, TransferSettings()):
        crew = Crew(
            [
                changed(
                    member,
                    init=InitSettings(source),
                    model=source_settings(source),
                    tokenizer=tokenizer,
                    transfer=one,
                )
            ]
        )
        moving = flat(crew.start.first_params(crew.settings))
        for path, leaf in flat(theirs).items():
            if path in moving:
                np.testing.assert_array_equal(moving[path], leaf)
        assert "layers/1/mlp/up/kernel" in moving
        assert ("layers/0/mlp/up/kernel" in moving) == (one != transfer)


@pytest.mark.parametrize(
    ("source", "method", "optim", "said"),
    [
        ("lm", "full", {"lora_plus": 4.0}, r"lora_plus=4\.0 is read with .*'lora' or"),
        ("", "full", {"unfreeze": "chain"}, "init.source is empty: they are untrained"),
        ("lm", "head", {"unfreeze": "gradual"}, "no layer ever moves; leave it out"),
    ],
)
def test_what_no_method_would_read_is_refused(member, source, method, optim, said):
    settings = dataclasses.replace(
        member.settings,
        init=InitSettings(source),
        transfer=TransferSettings(method=method),
        optim=dataclasses.replace(member.settings.optim, **optim),
    )
    with pytest.raises(InputError, match=said):
        finetune.check(settings)


@pytest.mark.parametrize(
    ("length", "pooling", "said"),
    [(32, "mean", "=32 leaves no token of config.task.length=32"), (4, "cls", "cls")],
)
def test_a_prompt_must_leave_room_and_a_state_of_the_text(
    member, length, pooling, said
):
    settings = changed(
        member,
        init=InitSettings("lm"),
        transfer=TransferSettings(method="prompt", prompt_length=length),
        head=dataclasses.replace(member.settings.head, pooling=pooling),
    ).settings
    with pytest.raises(InputError, match=said):
        finetune.check(settings)


def test_more_phases_than_steps_are_refused(member):
    optim = dataclasses.replace(member.settings.optim, unfreeze="chain")
    params = {"layers": {"0": {"k": 0}}, "embedding": {"k": 0}, "head": {"k": 0}}
    plan = Crew([member]).data.plans[member.folder]
    finetune._check_phases(optim, params, [plan])
    short = dataclasses.replace(plan, gather_TBL=plan.gather_TBL[:3])
    with pytest.raises(InputError, match="has 4 phases, but a run has 3 steps"):
        finetune._check_phases(optim, params, [plan, short])


@pytest.fixture
def from_llama(member, tiny_llama):
    """from_llama(**settings) -> the member, beginning with a tiny llama's weights."""
    source = f"hf:{tiny_llama}"

    def build(*, reinit_layers=0, **settings):
        return changed(
            member,
            init=InitSettings(source, reinit_layers),
            model=dataclasses.replace(source_settings(source), dtype="float32"),
            tokenizer=dataclasses.replace(member.settings.tokenizer, source=""),
            **settings,
        )

    return build


@pytest.mark.parametrize("frozen", [0, 1])
def test_fresh_top_layers_are_at_first_the_model_without_them(
    from_llama, tiny_llama, frozen
):
    """A fresh block is the identity and a fresh norm's scale is one."""
    transfer = TransferSettings(frozen_layers=frozen)
    one = from_llama(reinit_layers=1, transfer=transfer)
    crew = Crew([one])
    params = crew.start.whole(crew.start.first_params(one.settings))
    theirs = load_params_of(f"hf:{tiny_llama}")
    for path, leaf in flat(theirs["layers"]["0"]).items():
        np.testing.assert_array_equal(flat(params["layers"]["0"])[path], leaf)
    lower = dataclasses.replace(one.settings.model, depth=1)
    norm = {"scale": np.ones(24, np.float32)}
    tokens = crew.data.train.tokens[:3]
    cut = {**theirs, "layers": {"0": theirs["layers"]["0"]}, "final_norm": norm}
    whole, short = (
        pooled_features(settings, tree, tokens, poolings=("mean",))
        for settings, tree in ((one.settings.model, params), (lower, cut))
    )
    # float32, fused in another order
    np.testing.assert_allclose(whole, short, rtol=1e-4, atol=1e-6)
    named = crew.start.facts["fresh"]
    assert "final_norm/scale" in named and "layers/1/mlp/up/kernel" in named
    assert not [path for path in named if path.startswith("layers/0")]


def test_fresh_layers_are_those_of_the_member_s_seed(from_llama):
    one = from_llama(reinit_layers=1)
    two = changed(one, seed=one.settings.seed + 1)
    crew = Crew([one, two])
    first, second = (crew.start.first_params(each.settings) for each in (one, two))
    lone = Crew([two]).start.first_params(two.settings)
    for path, leaf in flat(second).items():
        np.testing.assert_array_equal(leaf, flat(lone)[path])
    ups = [tree["layers"]["1"]["mlp"]["up"]["kernel"] for tree in (first, second)]
    assert not np.array_equal(*ups)


@pytest.mark.parametrize("method", ["full", "lora", "head"])
def test_a_head_may_begin_as_the_probe(from_llama, method):
    """Its first decisions are the probe's own; in a crew as alone."""
    head = HeadSettings("mean", start="probe")
    transfer = TransferSettings(method=method)
    one = from_llama(head=head, transfer=transfer)
    task = dataclasses.replace(one.settings.task, n=6)
    two = dataclasses.replace(
        changed(one, seed=9, task=task), folder=one.folder.with_name("two")
    )
    two.folder.mkdir()
    crew = Crew([one, two])
    for each in (one, two):
        moving = crew.start.first_params(each.settings)
        own = learned_from(crew, each)
        features = pooled_features(
            each.settings.model,
            crew.start.whole(moving),
            own.tokens,
            poolings=("mean",),
        )[:, 0, 0]
        fitted = fit_probe(features, own.labels, 2)
        held_out = crew.data.sets["validation"]
        found = crew.scorer.probabilities(
            moving, crew.scoring["validation"], len(held_out), crew.start.frozen
        )
        features = pooled_features(
            each.settings.model,
            crew.start.whole(moving),
            held_out.tokens,
            poolings=("mean",),
        )[:, 0, 0]
        # float32 on both sides, items packed into other rows
        np.testing.assert_allclose(found, fitted.probabilities(features), atol=2e-4)
    lone = Crew([two]).start.first_params(two.settings)
    for path, leaf in flat(moving).items():
        np.testing.assert_array_equal(leaf, flat(lone)[path])


def test_each_member_is_scored_with_its_own_alpha(from_llama):
    one, two = (
        from_llama(transfer=TransferSettings("lora", rank=2, alpha=alpha))
        for alpha in (4.0, 16.0)
    )
    two = dataclasses.replace(two, folder=one.folder.with_name("two"))
    crew = Crew([one, two])
    moving = jax.tree.map(lambda x: x + 0.1, crew.start.first_params(one.settings))
    both = population.stack([moving, moving])
    args = [one, two], both, "validation"
    first, second = crew.probabilities(*args, "turn", [0, 1])
    assert not np.allclose(first, second)
    two.folder.mkdir()
    lone = population.stack([moving])
    (alone,) = Crew([two]).probabilities([two], lone, "validation", "turn", [0])
    np.testing.assert_array_equal(second, alone)
    # together: one call a step for both members, though only one is due
    (together,) = crew.probabilities(*args, "vmap", [1])
    np.testing.assert_allclose(together, second, rtol=1e-5)  # float32, other sums


def learned_from(crew, member):
    """The items that a member learns from, read off its plan."""
    items = np.unique(crew.data.plans[member.folder].items_TBM)
    return crew.data.train.take(items[items >= 0])


@pytest.mark.parametrize(
    ("source", "reinit", "start", "transfer", "said"),
    [
        ("", 0, "probe", {}, "head.start='probe' fits .*init.source is empty"),
        ("", 1, "random", {}, "reinit_layers=1, .* every layer is drawn anew"),
        ("lm", 3, "random", {}, "reinit_layers=3 .* the model has 2 layers"),
        ("lm", 2, "random", {"frozen_layers": 1}, "frozen_layers=1, .* has 2 layers"),
        ("lm", 1, "random", {"method": "lora"}, "stay untrained .* take 'full'"),
        ("lm", 0, "probe", {"method": "prompt"}, "without the vectors .*'random'"),
    ],
)
def test_a_start_that_cannot_be_is_refused(
    member, source, reinit, start, transfer, said
):
    settings = dataclasses.replace(
        member.settings,
        init=InitSettings(source, reinit),
        head=HeadSettings("mean", start),
        transfer=TransferSettings(**transfer),
    )
    with pytest.raises(InputError, match=said):
        finetune.check(settings)


def test_layers_drawn_anew_have_no_importance(member):
    one = changed(
        member,
        init=InitSettings("lm", 1),
        regularize=RegularizeSettings(ewc=1.0, replay_source="text:texts"),
    )
    with pytest.raises(InputError, match="ewc=1.0 .*reinit_layers=1 .* take one"):
        finetune.check(one.settings)


def test_next_words_cost_a_product_also_where_a_prefix_moves(from_llama):
    one, more = (
        from_llama(
            transfer=TransferSettings(method="prefix", prefix_length=4),
            regularize=RegularizeSettings(lm_weight=weight),
        )
        for weight in (0.0, 0.5)
    )
    crews = [Crew([each]) for each in (one, more)]
    plain, worded = (
        crew.flops(each, crew.start.first_params(each.settings), tokens=10)
        for crew, each in zip(crews, (one, more), strict=True)
    )
    embedding = crews[0].start.base["embedding"]["tokens"]
    assert worded - plain == 4.0 * embedding.size * 10


def test_of_the_top_layer_what_no_token_reads_costs_nothing(from_llama):
    """6 FLOPs a parameter and token, but in the top layer a row has M tokens, not L."""
    last, mean, worded = (
        from_llama(head=HeadSettings(pooling), regularize=regularize)
        for pooling, regularize in (
            ("last", RegularizeSettings()),
            ("mean", RegularizeSettings()),
            ("last", RegularizeSettings(lm_weight=0.5)),
        )
    )
    crews = [Crew([one]) for one in (last, mean, worded)]
    read, whole, words = (
        crew.flops(one, crew.start.first_params(one.settings), tokens=1000)
        for crew, one in zip(crews, (last, mean, worded), strict=True)
    )
    model, data = last.settings.model, crews[0].data
    head_width = model.head_width or model.width // model.heads
    queries = model.heads * head_width
    at_read = 2 * model.width * queries + 3 * model.width * model.mlp_width
    unread = 1000 * (1 - data.slots / data.row_length)
    assert 0 < data.slots < data.row_length
    assert whole - read == pytest.approx(6 * at_read * unread)
    embedding = crews[2].start.base["embedding"]["tokens"]
    assert words - whole == pytest.approx(6 * embedding.size * 1000)


def test_a_probe_needs_two_items(from_llama):
    one = from_llama(head=HeadSettings("mean", start="probe"))
    crew = Crew([one])
    crew.data._items[one.settings] = np.arange(1)
    with pytest.raises(InputError, match="needs two labelled items"):
        crew.start.first_params(one.settings)


def test_a_run_that_is_not_finite_ends_alone(member, tmp_path, capsys):
    """Its folder says so and holds no parameters; the other is the lone run."""
    optim = dataclasses.replace(member.settings.optim, lr_peak=1e38)
    wild = dataclasses.replace(changed(member, optim=optim), folder=tmp_path / "wild")
    lone = dataclasses.replace(member, folder=tmp_path / "lone")
    for members in ([wild, member], [lone]):
        finetune.finetune(members, populations=tmp_path / "populations")
    final = final_record(wild.folder)
    assert final["stopped"]["reason"] == "not finite" and final["params_sha256"] is None
    assert final["test"]["accuracy"]["value"] == 0.5
    assert not (wild.folder / "params").exists()
    assert capsys.readouterr().out.count("wild ended after") == 1
    alone, beside = (final_record(one.folder) for one in (lone, member))
    assert alone == beside and "stopped" not in alone
    with pytest.raises(InputError, match="wild ended after .* no parameters"):
        load_params_of(str(wild.folder))
    finetune.finetune([wild, member], populations=tmp_path / "populations")  # ended


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_run_whose_output_is_no_number_ends_alone(
    member, tmp_path, monkeypatch, name
):
    """Its loss was finite; only a split that is scored tells."""
    wild = dataclasses.replace(member, folder=tmp_path / "wild")
    probabilities = Crew.probabilities

    def overflown(crew, group, params, split, mode, due):
        found = probabilities(crew, group, params, split, mode, due)
        return [
            np.full_like(one, np.nan)
            if split == name and group[i].folder == wild.folder
            else one
            for i, one in zip(due, found, strict=True)
        ]

    monkeypatch.setattr(Crew, "probabilities", overflown)
    finetune.finetune([wild, member], populations=tmp_path / "populations")
    final = final_record(wild.folder)
    assert final["stopped"]["reason"] == "not finite" and final["params_sha256"] is None
    assert "stopped" not in final_record(member.folder)


def test_other_text_is_the_same_whatever_the_companions(member, reviews, tmp_path):
    on = RegularizeSettings(replay=0.5, replay_source=f"csv:{reviews}?text=review")
    one = changed(member, init=InitSettings(""), regularize=on)
    longer = dataclasses.replace(
        changed(one, epochs=50 * one.settings.epochs), folder=tmp_path / "longer"
    )
    alone, beside = (Crew(members).data.text for members in ([one], [one, longer]))
    jax.tree.map(np.testing.assert_array_equal, alone, beside)


def test_a_run_that_lost_patience_says_where(member, tmp_path):
    """What it computed is counted up to there."""
    optim = dataclasses.replace(member.settings.optim, lr_peak=0.0)
    record = dataclasses.replace(member.settings.record, validations=4, patience=1)
    one = changed(member, optim=optim, record=record)
    finetune.finetune([one], populations=tmp_path / "populations")
    final, plan = final_record(one.folder), Crew([one]).data.plans[one.folder]
    assert final["step"] == final["stopped"]["step"] < plan.steps
    assert final["stopped"]["of_steps"] == plan.steps
    manifest = json.loads((one.folder / "manifest.json").read_text())
    assert manifest["tokens"] == plan.segments_TBL[: final["step"]].size
    assert load_params_of(str(one.folder))


def test_plans_are_padded_to_a_length_that_populations_share(member):
    short = dataclasses.replace(changed(member, epochs=1.0), folder=pathlib.Path("b"))
    crew = Crew([member, short])
    plans = [crew.data.plans[one.folder] for one in (member, short)]
    long, padded = map(crew.data.padded_plan, plans)
    steps = plans[1].steps
    assert steps < plans[0].steps <= len(long["gather_TBL"]) == 32
    assert {name: rows.shape for name, rows in padded.items()} == {
        name: rows.shape for name, rows in long.items()
    }
    assert (padded["gather_TBL"][steps:] == -1).all()
    assert not padded["weights_TBM"][steps:].any()
    assert padded["weights_TBM"][:steps].sum() == 14


@pytest.mark.parametrize(
    ("depth", "source", "told"), [(30, "lm", True), (2, "lm", False), (30, "", False)]
)
def test_layers_that_as_good_as_stand_still_are_told_of(
    member, capsys, depth, source, told
):
    settings = member.settings
    deep = dataclasses.replace(
        settings,
        init=dataclasses.replace(settings.init, source=source),
        model=dataclasses.replace(settings.model, depth=depth),
        optim=dataclasses.replace(settings.optim, layer_decay=0.3),
    )
    finetune._tell_of_layer_decay([dataclasses.replace(member, settings=deep)])
    said = capsys.readouterr().out
    assert ("leaves the lowest of 30 layers 2e-16 of" in said) == told
    assert bool(said) == told


@pytest.fixture
def three(member, tmp_path):
    """Members that differ in their seeds."""
    (tmp_path / "s0").mkdir()
    return [
        dataclasses.replace(changed(member, seed=seed), folder=tmp_path / f"s{seed}")
        for seed in range(3)
    ]


def test_a_population_too_large_for_memory_is_split_the_same_when_resumed(
    three, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(population, "choose_mode", lambda members: "vmap")
    needed, trained = Crew(three[:1]).member_bytes("vmap"), []

    def killed_at(count):
        def train(crew, group, whole, *rest):
            trained.append([one.folder.name for one in group])
            assert whole.division.mode == "vmap"
            if len(trained) == count:
                raise KeyboardInterrupt

        monkeypatch.setattr(finetune, "_train_group", train)

    folder = tmp_path / "populations"
    monkeypatch.setattr(memory, "free_bytes", lambda devices=1: needed)
    with pytest.raises(InputError, match="a run needs .* beside the model"):
        finetune.finetune(three, populations=folder)
    assert not folder.exists()
    monkeypatch.setattr(memory, "free_bytes", lambda devices=1: 2.5 * needed)
    killed_at(2)
    with pytest.raises(KeyboardInterrupt):
        finetune.finetune(three, populations=folder)
    monkeypatch.setattr(memory, "free_bytes", lambda devices=1: 100 * needed)
    killed_at(None)
    finetune.finetune(three, populations=folder)
    assert trained == [["s0", "s1"], ["s2"]] * 2
    assert capsys.readouterr().out.count("2 are trained at a time") == 1
    assert not folder.exists()


def test_members_together_are_scored_in_one_call_each_by_its_own(
    three, tmp_path, monkeypatch
):
    calls, together = [], classification.Scorer.of_members
    monkeypatch.setattr(
        classification.Scorer,
        "of_members",
        lambda *args: calls.append(len(args[1]["head"]["bias"])) or together(*args),
    )
    model = dataclasses.replace(three[0].settings.model, depth=1)
    group = [changed(one, epochs=1.0, model=model) for one in three]
    monkeypatch.setattr(population, "choose_mode", lambda members: "vmap")
    for one in group:
        one.folder.mkdir(exist_ok=True)
    finetune.finetune(group, populations=tmp_path / "populations")
    assert calls == [3] * (2 + 1)  # two validations, and at the end the test split
    crew, found = Crew(group), []
    for one in group:
        lines = (one.folder / "predictions" / "test.jsonl").read_text().splitlines()
        rows = [list(json.loads(line)["probabilities"].values()) for line in lines]
        found.append(np.array(rows))
        alone = crew.scorer.probabilities(
            load_params_of(str(one.folder)), crew.scoring["test"], len(rows)
        )
        np.testing.assert_allclose(found[-1], alone, atol=1e-5)
    assert np.abs(found[0] - found[2]).max() > 1e-3


def test_members_on_several_devices_end_as_on_one_also_when_interrupted(
    three, tmp_path, monkeypatch
):
    """Three on two devices: two together, then one beside one that takes no step."""
    settings, calls, train = three[0].settings, [], loop.train
    often = {"checkpoint_seconds": 0.0, "choose": "best"}

    def on_devices(run, folder):
        return [
            dataclasses.replace(
                changed(
                    one,
                    mesh=dataclasses.replace(settings.mesh, run=run),
                    model=dataclasses.replace(settings.model, depth=1),
                    record=dataclasses.replace(settings.record, **often),
                ),
                folder=folder / one.folder.name,
            )
            for one in three
        ]

    def interrupted(work, **given):
        advance = work.advance

        def counted(*args):
            calls.append(len(args[0].step))
            if len(calls) == 3:
                signal.raise_signal(signal.SIGINT)
            return advance(*args)

        work.advance = counted
        return train(work, **given)

    monkeypatch.setattr(loop, "train", interrupted)
    populations = tmp_path / "populations"
    spread, alone = on_devices(2, tmp_path), on_devices(1, tmp_path / "one")[1:]
    with pytest.raises(KeyboardInterrupt):
        finetune.finetune(spread, populations=populations)
    finetune.finetune(spread, populations=populations)
    # rounds: three until Ctrl-C, the one that was left, then four of the last member
    assert calls == [2] * (3 + 1 + 4)
    assert not populations.exists()
    alone[0].folder.mkdir(parents=True)
    finetune.finetune(alone, populations=populations)
    for one, mine in zip(alone, spread[1:], strict=True):
        assert final_record(one.folder) == final_record(mine.folder)


@pytest.mark.parametrize(
    ("members", "axes", "said"),
    [
        (9, {"run": 9}, "mesh asks for 9 devices .* there are 8"),
        (2, {"run": 2, "fsdp": 2}, "data=1, fsdp=2, tensor=1; a fine-tuning run is"),
    ],
)
def test_devices_that_nothing_would_use_are_refused(member, members, axes, said):
    mesh = dataclasses.replace(member.settings.mesh, **axes)
    population = [changed(member, mesh=mesh)] * members
    with pytest.raises(InputError, match=said):
        finetune.finetune(population, populations=member.folder / "populations")
    assert not list(member.folder.iterdir())


def test_fewer_members_than_devices_take_fewer(member):
    mesh = dataclasses.replace(member.settings.mesh, run=4)
    one = changed(member, mesh=mesh)
    assert [mesh_of([one] * members).run for members in (1, 3, 5)] == [1, 3, 4]
    assert Crew([one]).mesh.size == 1


@pytest.mark.parametrize(
    ("members", "run", "mode"), [(1, 1, "turn"), (3, 2, "turn"), (2, 1, "vmap")]
)
def test_both_programs_are_compiled_once_while_first_weights_are_drawn(
    member, tmp_path, monkeypatch, caplog, members, run, mode
):
    """From shapes alone, which must be those that they are called with."""
    monkeypatch.setattr(population, "choose_mode", lambda members: mode)
    mesh = dataclasses.replace(member.settings.mesh, run=run)
    both = [
        dataclasses.replace(
            changed(member, mesh=mesh, seed=i), folder=tmp_path / f"{i}"
        )
        for i in range(members)
    ]
    jax.config.update("jax_log_compiles", True)
    try:
        finetune.finetune(both, populations=tmp_path / "populations")
    finally:
        jax.config.update("jax_log_compiles", False)
    said = re.compile(r"Finished XLA compilation of jit\((step|in_turn|vmapped|spread)")
    threads = [one.threadName for one in caplog.records if said.match(one.message)]
    assert len(threads) == 2
    assert all(name.startswith("ThreadPool") for name in threads)
