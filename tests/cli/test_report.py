"""`tljax report` takes the folder of a run or of an experiment."""

import json

from tljax.cli.main import main
from tljax.train.record import read_metrics


def test_a_run_folder_gets_a_page_and_its_numbers_are_told(
    labelled_run, language_run, capsys
):
    for run in (labelled_run, language_run):
        assert main(["report", str(run)]) == 0
        page = (run / "report.html").read_text()
        assert page.startswith("<!doctype html>")
        shown = capsys.readouterr().out
        assert f"report: {run / 'report.html'}" in shown
        final = read_metrics(run)[-1]
        one = final["test"]["accuracy"] if "test" in final else final["bits_per_byte"]
        assert f"{one['value']:.4f}" in shown


def test_a_sweep_s_folder_gets_a_page_and_its_best_is_told(tmp_path, capsys, refused):
    space = [{"key": "seed", "kind": "int", "low": 0, "high": 9}]
    plan = {"config": {}, "space": space, "search": "grid", "prune": "none"}
    plan |= {"seeds": 2, "trials": 1, "metric": "test/accuracy"}
    row = {"number": 4, "state": "complete", "params": {"seed": 5}, "order": 0}
    (tmp_path / "trials.json").write_text(json.dumps([row | {"values": [0.5, 0.6]}]))
    sweep = tmp_path / "sweep.json"
    sweep.write_text(json.dumps(plan | {"direction": "up"}))
    assert "direction is 'up'" in refused("report", tmp_path)
    sweep.write_text(json.dumps(plan | {"direction": "maximize"}))
    assert main(["report", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Trial 4 is best: test/accuracy 55.0")
    assert f"report: {tmp_path / 'report.html'}" in shown
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_any_other_folder_with_a_config_is_read_as_an_experiment(tmp_path, refused):
    (tmp_path / "config.json").write_text("{}")
    assert f"{tmp_path / 'runs'} is missing" in refused("report", tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_all_kept_results_get_one_page(tmp_path, capsys):
    assert main(["report", "--all", f"--out={tmp_path / 'kept'}"]) == 0
    page = tmp_path / "kept" / "index.html"
    assert f"report: {page}" in capsys.readouterr().out
    assert "transfer beats scratch at n = 50" in page.read_text()


def test_an_ablation_is_told_to_make_its_own(tmp_path, refused):
    (tmp_path / "config.json").write_text('{"arms": {}}')
    assert "is of an ablation" in refused("report", tmp_path)


def test_bad_input_is_one_line(tmp_path, refused, language_run, copy_of):
    assert "takes one folder" in refused("report")
    assert "takes one folder" in refused("report", "a", "b")
    assert "with --all only" in refused("report", "a", "--out=b")
    assert "takes no" in refused("report", "a", "--all")
    assert "holds no config.json" in refused("report", tmp_path)
    assert "holds no config.json" in refused("report", tmp_path / "nowhere")
    open_run = copy_of(language_run)
    (open_run / "metrics.jsonl").unlink()
    assert "metrics.jsonl" in refused("report", open_run)
