"""tljax report: rebuilds an experiment's or a run's report from its records alone.

work folder -> summary.json, report.html (a sweep's: trials.csv too); run folder ->
report.html; all kept results of experiments/ -> one page. Trains nothing.
"""

from collections.abc import Sequence
from pathlib import Path

from tljax.cli.command import Flag, help_text, no_words, number_lines, read_flags
from tljax.settings import SETTINGS_OF_KIND, InputError

USAGE = "tljax report DIR | --all [--out=DIR]"
DESCRIPTION = """
DIR is the work folder of an experiment (summary.json and report.html are written) or
of a sweep (trials.csv too), or the folder of one run (report.html). Only records are
read: nothing is trained, and the same records give the same numbers.

  tljax report runs/low_shot
  tljax report runs/lm

--all puts the kept results of all experiments on one page, every claim with the paper's
number beside ours and its verdict.
"""
FLAGS = (
    Flag("all", "", "the index page of all kept results"),
    Flag("out", "DIR", "of --all: folder of index.html; 'reports' unless said"),
)


def run(argv: Sequence[str]) -> None:
    """Writes the report and says where it is."""
    given = read_flags(argv, FLAGS, program="tljax report")
    if "help" in given.flags:
        print(help_text(USAGE, DESCRIPTION, FLAGS))
        return
    if "all" in given.flags:
        no_words(given, "tljax report --all")
        _report_all(Path(given.flags.get("out", "reports")))
        return
    if "out" in given.flags:
        raise InputError("--out is read with --all only; a report lies in its folder")
    if len(given.words) != 1:
        raise InputError(f"tljax report takes one folder: {USAGE}")
    folder = Path(given.words[0])
    if (folder / "sweep.json").is_file():
        _report_sweep(folder)
        return
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder} holds no config.json; give the work folder of an experiment or"
            " a sweep, or the folder of a run"
        )
    from tljax.report import records

    config = records.load_json(folder / "config.json")
    if config.get("kind") in tuple(SETTINGS_OF_KIND):
        _report_run(folder)
    elif "arms" in config:
        raise InputError(
            f"{folder} is of an ablation, whose own command makes its report: delete"
            f" {folder / 'report.html'} and start that command again"
        )
    else:
        _report_experiment(folder)


def _report_all(out: Path) -> None:
    from tljax.report.catalogue import ROOT, catalogue
    from tljax.report.index import write_index

    experiments = catalogue()
    if not experiments:
        raise InputError(f"{ROOT} holds no experiments; run it from a checkout")
    print(f"report: {write_index(experiments, out)}")


def _report_run(folder: Path) -> None:
    from tljax.report.run_page import write_run_report

    for line in number_lines(write_run_report(folder)):
        print(line)
    print(f"report: {folder / 'report.html'}")


def _report_sweep(folder: Path) -> None:
    from tljax.report.sweep_page import write_sweep_report

    for line in write_sweep_report(folder)["sentences"]:
        print(line)
    print(f"report: {folder / 'report.html'}")


def _report_experiment(folder: Path) -> None:
    from rich.console import Console

    from tljax.report.page import write_experiment_report
    from tljax.report.terminal import print_summary

    summary = write_experiment_report(folder)
    print_summary(summary, report=folder / "report.html", console=Console())
