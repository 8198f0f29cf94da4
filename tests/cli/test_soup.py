"""`tljax soup`: a run folder that every verb reads; what cannot be averaged is told."""

import json

import numpy as np
import pytest

from tljax.cli.main import main
from tljax.cli.models import load_params_of
from tljax.train.record import final_record
from tljax.transfer.transplant import flat


@pytest.fixture(scope="module")
def other_run(tmp_path_factory, finetune_arguments, language_run):
    """Another seed, by LoRA, from the same language run as `labelled_run`."""
    folder = tmp_path_factory.mktemp("runs") / "other"
    start = [f"--config.init.source={language_run}", f"--workdir={folder}"]
    lora = ["--config.transfer.method=lora", "--config.seed=9"]
    assert main(["train", *finetune_arguments, *start, *lora]) == 0
    return folder


def test_a_soup_of_two_is_a_run(labelled_run, other_run, reviews, tmp_path, capsys):
    out, labels = tmp_path / "soup", tmp_path / "labels.jsonl"
    assert main(["soup", f"--out={out}", str(labelled_run), str(other_run)]) == 0
    told = capsys.readouterr().out
    accuracy = final_record(out)["validation"]["accuracy"]["value"]
    assert f"validation accuracy {accuracy:.4f}" in told
    found, *both = (
        flat(load_params_of(str(x))) for x in (out, labelled_run, other_run)
    )
    for path, leaf in found.items():
        np.testing.assert_allclose(leaf, (both[0][path] + both[1][path]) / 2, rtol=1e-6)
    manifest = json.loads((out / "manifest.json").read_text())
    assert [one["taken"] for one in manifest["soup"]["runs"]] == [True, True]
    assert "transfer" not in json.loads((out / "config.json").read_text())
    file = [f"--input={reviews}", "--text=review"]
    assert main(["predict", f"--run={out}", *file, f"--output={labels}"]) == 0
    assert main(["report", str(out)]) == 0


def test_a_soup_of_a_run_and_its_copy_is_the_run(labelled_run, copy_of, tmp_path):
    out = tmp_path / "soup"
    assert (
        main(["soup", f"--out={out}", str(labelled_run), str(copy_of(labelled_run))])
        == 0
    )
    then, now = final_record(labelled_run), final_record(out)
    for name in ("params_sha256", "validation", "test"):
        assert now[name] == then[name]
    for split in ("validation", "test"):
        both = [x / "predictions" / f"{split}.jsonl" for x in (labelled_run, out)]
        assert both[0].read_text() == both[1].read_text()


def test_a_greedy_soup_begins_with_the_best(labelled_run, other_run, tmp_path):
    runs = [str(labelled_run), str(other_run)]
    accuracies = [final_record(x)["validation"]["accuracy"]["value"] for x in runs]
    best = runs[int(np.argmax(accuracies))]
    out = tmp_path / "greedy"
    assert main(["soup", f"--out={out}", "--greedy", *runs]) == 0
    facts = json.loads((out / "manifest.json").read_text())["soup"]
    assert facts["greedy"] and facts["runs"][0]["run"] == best
    assert facts["runs"][0]["taken"]
    reached = final_record(out)["validation"]["accuracy"]["value"]
    assert reached >= max(accuracies) - 1e-9


def test_what_cannot_be_averaged_is_one_line(
    labelled_run, language_run, copy_of, tmp_path, refused
):
    out, run = tmp_path / "soup", str(labelled_run)

    def said(*runs, more=()):
        line = refused("soup", f"--out={out}", *more, *runs)
        assert not out.exists()
        return line

    assert "two or more different runs, 1 given" in said(run)
    assert "two or more different runs" in said(run, f"{run}/")
    assert "is not a fine-tuning run" in said(run, language_run)
    assert "holds no config.json" in said(run, tmp_path)
    assert "no flag --greedily; did you mean 'greedy'" in said(run, more=["--greedily"])
    config = json.loads((labelled_run / "config.json").read_text())
    changes = {
        "config.model.kv_heads=1, ": {
            "model": config["model"] | {"heads": 2, "kv_heads": 1}
        },
        "config.task.length=24, ": {"task": config["task"] | {"length": 24}},
        "config.head.pooling='last', ": {"head": {"pooling": "last"}},
        "has layers that began at random": {"init": {"source": ""}},
    }
    for told, change in changes.items():
        other = copy_of(labelled_run, **change)
        assert told in said(run, other)
        other.rename(tmp_path / f"done{len(list(tmp_path.iterdir()))}")
    other = copy_of(labelled_run)
    path = other / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["init"]["params_sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))
    assert f"{other} has weights it began from='000" in said(run, other)
