"""The GPU's benchmark, in small: a section runs; what fails or lasts loses nothing."""

import json
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest

from scripts import gpu_bench
from tljax.cli.bench import accelerator, ceiling


def test_a_small_population_is_measured_in_both_modes():
    found = {}
    for one in gpu_bench.figures("population", small=True, peer=None):
        found |= one
    assert found["members"] == 2 and found["ratio"] > 0


@pytest.fixture
def section(monkeypatch, tmp_path):
    """section(script, name) -> what is kept of it; its file is `wrote`."""

    def run(script, name="taken"):
        wrote = f"import pathlib; wrote = pathlib.Path({str(tmp_path / 'wrote')!r})"
        (tmp_path / "section.py").write_text(f"{wrote}\n{script}\n")
        monkeypatch.setattr(gpu_bench, "__file__", str(tmp_path / "section.py"))
        return gpu_bench.run_section(name, [], 60)

    return run


def test_what_a_section_said_is_kept(section):
    said = "print('{\"a\": 1}', flush=True)"
    failed = section(f"{said}; raise SystemExit('no memory')")
    assert failed == {"a": 1, "failed": "no memory"}
    reached = section("print('warming'); print('{\"mfu\": 0.6}')", "decoder_1b")
    assert reached == {"mfu": 0.6, "reached": True, "target": {"mfu": 0.5}}
    missed = section("print('{\"mfu\": 0.3}')", "decoder_1b")
    assert missed["reached"] is False


def test_a_section_that_overruns_is_stopped_and_keeps_its_figures(
    section, monkeypatch, tmp_path
):
    class Slow(subprocess.Popen):
        """Its time is over as soon as it has said something."""

        def wait(self, timeout=None):
            if timeout is None:
                return super().wait()
            while not (tmp_path / "wrote").exists():
                time.sleep(0.01)
            raise subprocess.TimeoutExpired(self.args, timeout)

    monkeypatch.setattr(subprocess, "Popen", Slow)
    found = section(
        "import time; print('{\"a\": 1}', flush=True); wrote.touch(); time.sleep(600)"
    )
    assert found == {"a": 1, "stopped": "after 60 s, its share of the time"}


def test_what_does_not_fit_is_tried_with_the_next_remat(monkeypatch):
    tried = []

    def make_step(size, dtype, *, remat, packed):
        tried.append((remat, packed))
        if remat == "none":
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: too much")
        state = types.SimpleNamespace(params={"w": np.ones((3, 5))})
        return lambda state, batch, hparams: (0, 0), state, {}, {}

    monkeypatch.setattr(accelerator.training, "make_step", make_step)
    found = {}
    for one in gpu_bench.figures("decoder_124m", small=True, peer=None):
        found |= one
    assert tried == [("none", False), ("products", False)]
    assert (found["remat"], found["parameters"]) == ("products", 15)
    assert found["tokens_per_second"] > 0 and found["mfu"] is None  # a CPU
    with pytest.raises(jax.errors.JaxRuntimeError, match="too much"):
        list(accelerator.decoder(None, small=True, remats=["none"], packed=True))


def test_the_promise_is_that_of_the_device():
    kinds = "NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA H200", "cpu"
    assert [ceiling.peak(kind) for kind in kinds] == [989e12, 756e12, 989e12, None]


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--only=decoder", "--only has 'decoder'; allowed: taken, ceiling"),
        ("--peer=nowhere", "--peer=nowhere has no bin/python"),
        ("--out=a.txt", ".json"),
    ],
)
def test_what_cannot_be_measured_is_refused(monkeypatch, capsys, flag, told):
    monkeypatch.setattr(sys, "argv", ["gpu_bench", flag])
    with pytest.raises(SystemExit, match="2"):
        gpu_bench.main()
    assert told in capsys.readouterr().err


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
