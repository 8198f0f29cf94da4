"""Three sources of chance, a seed each: labelled subset, first weights, data order."""

import dataclasses

import numpy as np
import pytest

from tljax.cli import finetune
from tljax.cli.crew import Crew
from tljax.cli.members import Member, check_shared
from tljax.settings import (
    FinetuneSettings,
    InputError,
    SeedSettings,
    from_config,
    to_dict,
)
from tljax.train.record import final_record
from tljax.transfer.transplant import flat


@pytest.fixture
def run_of(finetune_config, tmp_path):
    """run_of(name, seed=, subset=, init=, order=) -> a run on 6 of 14 items."""
    rows = [f"some words of number {i},{'ny'[i % 2]}" for i in range(20)]
    (tmp_path / "items.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    finetune_config["task"]["source"] = (
        f"csv:{tmp_path}/items.csv?text=text&label=label"
    )
    finetune_config["task"]["n"] = 6
    finetune_config["model"]["dropout"] = 0.2

    def build(name, *, seed=5, **seeds):
        (tmp_path / name).mkdir()
        settings = from_config(FinetuneSettings, finetune_config)
        settings = dataclasses.replace(settings, seed=seed, seeds=SeedSettings(**seeds))
        return Member(settings, tmp_path / name)

    return build


def drawn(crew, one):
    """What chance decides of a run: items, first weights, items of each step."""
    return {
        "subset": np.sort(crew.data._items[one.settings]),
        "init": crew.start.first_params(one.settings)["head"]["kernel"],
        "order": crew.data.plans[one.folder].items_TBM,
    }


def test_left_out_every_stream_is_the_run_s_seed(run_of):
    settings = run_of("a").settings
    assert settings.streams == SeedSettings(subset=5, init=5, order=5)
    assert "seeds" not in to_dict(settings)
    other = run_of("b", init=0).settings
    assert other.streams == SeedSettings(subset=5, init=0, order=5)
    assert to_dict(other)["seeds"] == {"init": 0}


@pytest.mark.parametrize("stream", ["subset", "init", "order"])
def test_a_stream_changes_nothing_but_its_own(run_of, stream):
    one, two = run_of("one"), run_of("two", **{stream: 6})
    check_shared([one, two])
    crew = Crew([one, two])
    first, second = drawn(crew, one), drawn(crew, two)
    # another subset is another order of its items too
    changed = {"subset": {"subset", "order"}}.get(stream, {stream})
    for name, values in first.items():
        assert np.array_equal(values, second[name]) == (name not in changed), name


def test_equal_streams_are_the_run_with_that_seed_bit_for_bit(run_of):
    """Whichever way they are written; another order draws another dropout."""
    plain = run_of("plain")
    spelt = run_of("spelt", seed=9, subset=5, init=5, order=5)
    other = run_of("other", order=9)
    members = [plain, spelt, other]
    finetune.finetune(members, populations=plain.folder / "populations")
    ends = [final_record(one.folder) for one in members]
    assert ends[0] == ends[1] != ends[2]


def test_scratch_weights_follow_init(run_of):
    one, two = run_of("one", init=8), run_of("two", seed=8)
    first, second = (
        Crew([each]).start.first_params(each.settings) for each in (one, two)
    )
    for path, leaf in flat(first).items():
        np.testing.assert_array_equal(leaf, flat(second)[path])


def test_a_seed_below_none_is_refused():
    with pytest.raises(InputError, match=r"config\.seeds\.order is -2; .* in \[-1, 4"):
        from_config(SeedSettings, {"order": -2}, "config.seeds")
