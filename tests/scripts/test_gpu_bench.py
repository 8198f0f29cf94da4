"""The GPU's benchmark, in small: a section runs; what fails or lasts loses nothing."""

import json
import sys

import pytest

from scripts import gpu_bench


def test_a_small_population_is_measured_in_both_modes():
    found = {}
    for one in gpu_bench.figures("population", small=True, peer=None):
        found |= one
    assert found["members"] == 2 and found["ratio"] > 0


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("print('{\"a\": 1}'); raise SystemExit('no memory')",
         {"a": 1, "failed": "no memory"}),
        ("print('{\"a\": 1}', flush=True); import time; time.sleep(60)",
         {"a": 1, "stopped": "after 2 s, its share of the time"}),
        ("print('warming'); print('{\"mfu\": 0.6}')",
         {"mfu": 0.6, "reached": True, "target": {"mfu": 0.5}}),
    ],
)  # fmt: skip
def test_what_a_section_said_is_kept(monkeypatch, tmp_path, script, found):
    (tmp_path / "section.py").write_text(script)
    monkeypatch.setattr(gpu_bench, "__file__", str(tmp_path / "section.py"))
    name = "decoder_1b" if "mfu" in found else "taken"
    assert gpu_bench.run_section(name, [], 2) == found


def test_all_is_written_as_it_is_found(monkeypatch, tmp_path):
    out, seen = tmp_path / "found.json", []

    def section(name, flags, seconds):
        seen.append((name, flags, seconds))
        if name == "ceiling":  # the section before is on disk by then
            assert set(json.loads(out.read_text())["sections"]) == {"taken"}
            monkeypatch.setattr(gpu_bench, "LIMIT", 10)
        return {"a": 1}

    monkeypatch.setattr(gpu_bench, "run_section", section)
    argv = ["gpu_bench", "--small", f"--out={out}", "--only=taken,ceiling,smollm2"]
    monkeypatch.setattr(sys, "argv", argv)
    gpu_bench.main()
    assert [one[:2] for one in seen] == [("taken", ["--small"]),
                                         ("ceiling", ["--small"])]  # fmt: skip
    sections = json.loads(out.read_text())["sections"]
    assert sections["taken"] == {"a": 1}
    assert sections["smollm2"]["skipped"].endswith("too few for it")
