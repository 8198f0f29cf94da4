"""`tljax data` shows what a source holds, without changing anything."""

import json

import pytest

from tljax.cli.main import main
from tljax.data.sources import catalogue, open_source


def test_list_shows_every_built_in_source_with_its_facts(capsys):
    assert main(["data", "list"]) == 0
    shown = capsys.readouterr().out
    for row in catalogue():
        assert f"{row.uri}\n" in shown
        assert row.licence[:20] in shown
        for split, size in row.sizes.items():
            assert f"{split} {size:,}" in shown


def test_show_tells_sizes_hashes_classes_lengths_and_examples(reviews, capsys):
    uri = f"csv:{reviews}?text=review&label=stars"
    assert main(["data", "show", uri]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    source = open_source(uri)
    for split in source.splits:
        assert source.split_hash(split) in shown
        labels = [example.label for example in source.examples(split)]
        counts = f"bad {labels.count('bad')} · good {labels.count('good')}"
        assert f"classes {counts}" in shown
    assert "texts 28" in shown  # 70 % of 40
    assert "23 characters, 5 words" in shown
    for example in source.examples("train")[:3]:
        assert f"{example.id} [{example.label}] {example.text}" in shown


def test_show_repeats_the_sources_notes_and_cuts_long_texts(tmp_path, capsys):
    path = tmp_path / "own.jsonl"
    rows = [{"body": letter * 500} for letter in "abcca"]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert main(["data", "show", f"jsonl:{path}?text=body"]) == 0
    shown = capsys.readouterr().out
    assert "note: 2 repeated texts dropped" in shown
    assert "…" in shown and "a" * 200 not in shown
    assert "classes" not in shown  # not labelled


def test_fetch_says_that_a_source_is_ready(reviews, capsys):
    assert main(["data", "fetch", f"csv:{reviews}?text=review"]) == 0
    assert "is ready (train 28 · validation 4 · test 8)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["lst"], "did you mean 'list'?"),
        (["show"], "takes one URI, 0 given"),
        (["list", "pkg:trec"], "takes nothing more"),
        (["show", "pkg:rotten_tomatos"], "did you mean 'rotten_tomatoes'?"),
        (["show", "reviews.csv"], "did you mean 'csv:reviews.csv'?"),
        (["show", "csv:nowhere.csv"], "nowhere.csv does not exist"),
        (["show", "--all"], "no flag --all"),
    ],
)
def test_bad_input_is_one_line(argv, said, refused):
    assert said in refused("data", *argv)
