"""Storages of studies; PostgreSQL is a real server, where one is installed."""

import pathlib
import shutil
import socket
import subprocess
import tempfile

import pytest

PROGRAMS = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"))


@pytest.fixture(scope="session")
def postgres():
    """URL of an empty database of a server of its own, gone at the end."""
    pytest.importorskip("psycopg")
    if not PROGRAMS:
        pytest.skip("no PostgreSQL server is installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield from _serve(PROGRAMS[-1].parent, pathlib.Path(folder))


def _serve(tools, folder):
    """Starts a server whose data lie in a folder, yields its URL, stops it."""
    data = folder / "data"
    as_user = []
    if pathlib.Path.home() == pathlib.Path("/root"):  # the server refuses root
        as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        folder.chmod(0o755)
        data.mkdir()
        shutil.chown(data, "nobody", "nogroup")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begin = [
        *as_user,
        str(tools / "initdb"),
        "-D",
        str(data),
        "-U",
        "tljax",
        "-A",
        "trust",
    ]
    subprocess.run(begin, check=True, capture_output=True)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
    control = [
        *as_user,
        str(tools / "pg_ctl"),
        "-D",
        str(data),
        "-w",
        "-l",
        f"{data}/log",
    ]
    subprocess.run([*control, "-o", options, "start"], check=True, capture_output=True)
    yield f"postgresql://tljax@127.0.0.1:{port}/postgres"
    subprocess.run([*control, "-m", "fast", "stop"], check=True, capture_output=True)


@pytest.fixture(params=["journal", "sqlite", "postgres"])
def storage(request, tmp_path) -> str:
    """A storage that several workers can open."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres")
    return {
        "journal": str(tmp_path / "journal.log"),
        "sqlite": f"sqlite:///{tmp_path}/study.db",
    }[request.param]
