"""Where the data came from: what each run says of it, and where runs do not agree."""

import copy
import html
import re
from pathlib import Path

import pytest

from tljax.report import provenance, records

MIT = "package MIT; texts: <none> stated"
DIFFERS = "<strong>Differs between runs:</strong>"


@pytest.fixture
def manifests(experiment_folder: Path) -> dict:
    """Of every run of the experiment; may be changed."""
    experiment = records.load_experiment(experiment_folder)
    return copy.deepcopy(provenance.load_manifests(experiment))


def shown(manifests: dict) -> tuple[str, list[list[str]]]:
    """The section, and the cells of all its rows; hashes by their first two digits."""
    page = provenance.provenance_html(command="", manifests=manifests, configs={})
    short = re.sub(r"<code>(..)\1{31}</code>", r"\1", page)
    rows = re.findall(r"<tr>(<th scope=\"row\">.*?)</tr>", short)
    return page, [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row) for row in rows]


def test_splits_have_rows_and_licence_and_file_a_place_of_their_own(
    manifests: dict,
) -> None:
    page, rows = shown(manifests)
    assert rows[-8:] == [
        ["pkg:imdb_reviews", html.escape(MIT), "d4"],
        ["pkg:rotten_tomatoes", html.escape(MIT), "d4"],
        ["pkg:imdb_reviews", "train", "09"],
        ["pkg:imdb_reviews", "validation", "87"],
        ["pkg:imdb_reviews", "test", "65"],
        ["pkg:rotten_tomatoes", "train", "a1"],
        ["pkg:rotten_tomatoes", "validation", "b2"],
        ["pkg:rotten_tomatoes", "test", "c3"],
    ]
    assert DIFFERS not in page


def test_runs_that_do_not_agree_are_all_listed_under_a_warning(
    manifests: dict,
) -> None:
    *_, one = manifests.values()
    one["code_sha256"] = "77" * 32
    one["data"]["pkg:rotten_tomatoes"] |= {
        "test": "88" * 32, "sha256": "99" * 32, "licence": "another"
    }  # fmt: skip
    page, rows = shown(manifests)
    assert page.count(DIFFERS) == 4
    assert ["Code", f"{DIFFERS}<br>f6<br>77"] in rows
    assert ["pkg:rotten_tomatoes", "test", f"{DIFFERS}<br>c3<br>88"] in rows
    licences = f"{DIFFERS}<br>{html.escape(MIT)}<br>another"
    assert ["pkg:rotten_tomatoes", licences, f"{DIFFERS}<br>d4<br>99"] in rows
    assert ["pkg:rotten_tomatoes", "train", "a1"] in rows


def test_a_split_that_a_run_did_not_read_is_no_difference(manifests: dict) -> None:
    *_, one = manifests.values()
    del one["data"]["pkg:rotten_tomatoes"]["test"]
    page, rows = shown(manifests)
    assert ["pkg:rotten_tomatoes", "test", "c3"] in rows
    assert DIFFERS not in page


def test_a_source_without_a_file_shows_a_dash(manifests: dict) -> None:
    for manifest in manifests.values():
        for facts in manifest["data"].values():
            facts["sha256"] = ""
    _, rows = shown(manifests)
    assert ["pkg:imdb_reviews", html.escape(MIT), "–"] in rows
