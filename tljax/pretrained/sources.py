"""Which checkpoint a URI names: hf:DIR, hf:ORG/NAME, gguf:FILE, pkg:NAME.

    pkg:NAME -> the published package, checked and unpacked once into the cache
    hf:, gguf: -> as they lie on disk; hf:ORG/NAME is fetched where there is an internet

Opens only; nothing is read before it has a place.
"""

import os
import shutil
import tempfile
import zipfile
from pathlib import Path

from tljax.data.packages import fetch_package
from tljax.data.sources import default_cache
from tljax.pretrained.checkpoint import Checkpoint
from tljax.pretrained.folder import fetch_hub, open_folder
from tljax.pretrained.packaged import MODELS, PackagedModel
from tljax.settings import InputError, suggestion

SCHEMES = ("hf", "gguf", "pkg")


def is_uri(text: str) -> bool:
    """Whether a source names a checkpoint of other people's, not a run folder."""
    return text.partition(":")[0] in SCHEMES and ":" in text


def open_pretrained(uri: str) -> Checkpoint:
    """Opens the checkpoint that a URI names; fetches a package that is not there.

    Raises:
      InputError: unknown scheme or name, nothing there, or nothing that can be read.
    """
    scheme, _, rest = uri.partition(":")
    if scheme not in SCHEMES or not rest:
        near = suggestion(scheme, SCHEMES) if rest else ": nothing is named"
        raise InputError(
            f"{uri!r:.80} is no model{near}; give hf:DIR,"
            f" hf:ORG/NAME, gguf:FILE or {', '.join(f'pkg:{name}' for name in MODELS)}"
        )
    path = _path(rest, uri)
    if scheme == "gguf":
        return _open_gguf(path)
    if scheme == "hf":
        if _is_bare_name(rest):
            raise InputError(
                f"hf:{rest} is not a folder here{suggestion(rest, os.listdir())}; of a"
                f" model on the hub write the owner too: hf:ORG/{rest}, e.g."
                " hf:openai-community/gpt2"
            )
        return open_folder(path if _is_local(rest) else fetch_hub(rest))
    if rest not in MODELS:
        raise InputError(
            f"there is no pkg:{rest}{suggestion(rest, MODELS)}; there are:"
            f" {', '.join(f'pkg:{name}' for name in MODELS)}"
        )
    unpacked = _unpack(MODELS[rest], default_cache())
    return _open_gguf(unpacked) if unpacked.suffix == ".gguf" else open_folder(unpacked)


def _open_gguf(path: Path) -> Checkpoint:
    from tljax.pretrained.gguf.reader import open_gguf  # late: imports gguf, .1 s

    return open_gguf(path)


def _path(rest: str, uri: str) -> Path:
    """What a URI names, there or not, but for names that no file can have."""
    try:
        path = Path(rest).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # told by what opens it
    except (OSError, RuntimeError) as error:  # too long, a loop of links, ~nobody
        raise InputError(
            f"{uri!r:.80} cannot be opened: {getattr(error, 'strerror', error)}; give"
            " another path"
        ) from error
    return path


def _is_bare_name(text: str) -> bool:
    """'gpt2': what the hub's oldest models were called, and no folder is."""
    return "/" not in text and text[0] not in ".~" and not Path(text).exists()


def _is_local(text: str) -> bool:
    """ORG/NAME is a folder if it is there; what has more or fewer parts always is."""
    return Path(text).expanduser().exists() or text.count("/") != 1 or text[0] in "./~"


def _unpack(model: PackagedModel, cache: Path) -> Path:
    """The model's file or folder in the cache; whole or not there."""
    wheel = fetch_package(model.package, cache=cache)
    target = cache / "models" / model.package.sha256[:16]
    name = Path(model.inside).name
    if not (target / name).exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".unpack-"))
        try:
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.namelist():
                    if member.startswith(model.inside) and not member.endswith("/"):
                        _copy(archive, member, scratch / name, model.inside)
            _move(scratch, target, name)
        except OSError as error:
            raise InputError(
                f"cannot unpack {wheel} to {target}: {error.strerror or error}; make"
                " room, or set TLJAX_CACHE to another folder"
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return target / name


def _move(scratch: Path, target: Path, name: str) -> None:
    """Puts a whole folder in its place, unless another process was there first."""
    try:
        os.replace(scratch, target)
    except OSError:
        if not (target / name).exists():
            raise


def _copy(archive: zipfile.ZipFile, member: str, place: Path, inside: str) -> None:
    rest = member.removeprefix(inside)
    place = place / rest if rest else place
    place.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, place.open("wb") as target:
        shutil.copyfileobj(source, target)
