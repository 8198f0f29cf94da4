"""Huge pages are asked for once, by starting the process again."""

import os
import pathlib
import subprocess
import sys

import pytest

from tljax.cli import host_memory


@pytest.mark.parametrize("helps", [True, False])
@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("", "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=0", "glibc.malloc.check=0:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_a_process_starts_again_with_what_it_was_given(tmp_path, helps, given, asked):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "from tljax.cli import host_memory\n"
        f"host_memory._helps = lambda: {helps}\n"
        "print(os.getpid(), file=sys.stderr)\n"
        "host_memory.ask_for_huge_pages()\n"
        "print(sys.argv[1:], os.environ.get(host_memory.VARIABLE, ''))\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8", str(script), "--config=a b", ""],
        env=os.environ | {host_memory.VARIABLE: given},
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"['--config=a b', ''] {asked if helps else given}\n"
    starts = done.stderr.split()
    assert len(starts) == 1 + (helps and asked != given)
    assert len(set(starts)) == 1  # the same process, so that it can still be stopped


@pytest.mark.parametrize(
    ("now", "before"),
    [
        (host_memory.HUGE, None),
        (f"glibc.malloc.check=0:{host_memory.HUGE}", "glibc.malloc.check=0"),
        ("glibc.malloc.hugetlb=2", "glibc.malloc.hugetlb=2"),
        (None, None),
    ],
)
def test_programs_of_others_do_not_get_them(monkeypatch, now, before):
    monkeypatch.delenv(host_memory.VARIABLE, raising=False)
    if now:
        monkeypatch.setenv(host_memory.VARIABLE, now)
    assert host_memory.without_huge_pages().get(host_memory.VARIABLE) == before
    assert host_memory.without_huge_pages()["PATH"] == os.environ["PATH"]
