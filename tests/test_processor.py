"""XLA is told what the processor can do, and users are not overruled."""

import pytest

from tljax import processor

ONEDNN = "--xla_cpu_experimental_onednn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
AMX = f"--xla_cpu_prefer_vector_width=512 {ONEDNN}"


@pytest.mark.parametrize(
    ("amx", "given", "expected"),
    [
        (True, "", AMX),
        (True, "--xla_dump_to=a", f"--xla_dump_to=a {AMX}"),
        (
            True,
            "--xla_cpu_prefer_vector_width=128",
            f"--xla_cpu_prefer_vector_width=128 {ONEDNN}",
        ),
        (True, AMX, AMX),
        (False, "--xla_dump_to=a", "--xla_dump_to=a"),
        (False, "", ""),
    ],
)
def test_flags_for_amx(monkeypatch, amx, given, expected):
    has = {"amx_tile": amx}
    monkeypatch.setattr(processor, "processor_has", lambda flag: has[flag])
    assert processor.xla_flags(given) == expected
    monkeypatch.setenv("XLA_FLAGS", expected)
    assert processor.told_of_onednn() == amx


def test_a_processor_s_flags_are_read_where_there_are_any(monkeypatch, tmp_path):
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor.pathlib, "Path", lambda _: info)
    has = processor.processor_has.__wrapped__
    assert not has("avx2")  # no such file
    info.write_text("flags : fma avx2\n")
    assert has("avx2") and not has("avx")
