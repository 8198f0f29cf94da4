"""One population of a sweep, in a process of its own: what leaks or breaks ends here.

    python -m tljax.cli.sweep.group GROUP.json    -> run folders of its members

The sweep that started it holds the other end of its standard input: where that is gone,
this process goes too, so that no two ever write to one run folder.
"""

import contextlib
import os
import pathlib
import sys
import threading
from collections.abc import Sequence

from tljax.cli.command import run_command
from tljax.sweep.prune import Asha, Prune
from tljax.train.files import read_json

NO_MEMORY = 3  # exit status
_FULL = "RESOURCE_EXHAUSTED"  # how XLA says that memory is out


def main(argv: Sequence[str]) -> int:
    """Trains the group of a file; returns NO_MEMORY where memory was out."""
    group = read_json(argv[0])
    from tljax.cli.finetune import finetune  # late: imports JAX
    from tljax.cli.members import member_of
    from tljax.cli.pretrain import pretrain

    members = [member_of(one["config"], one["folder"]) for one in group["members"]]
    prune = _pruning(group.get("prune"))
    try:
        if members[0].settings.kind == "finetune":
            populations = pathlib.Path(group["populations"])
            finetune(members, populations=populations, prune=prune, others=True)
        else:
            for one in members:  # each is judged alone: no other stands beside it
                pretrain(one.settings, one.folder, prune=prune and prune.of(one.folder))
    except Exception as error:
        if not is_memory_out(error):
            raise
        return NO_MEMORY
    return 0


def is_memory_out(error: Exception) -> bool:
    """Whether memory could not be had; XLA's own class stands in no public module."""
    return isinstance(error, MemoryError) or _FULL in str(error)


def _pruning(asked: dict | None) -> Prune | None:
    """Who ends trials early, with what earlier populations have seen."""
    if not asked:
        return None
    trials = {
        int(number): [pathlib.Path(one) for one in folders]
        for number, folders in asked["trials"].items()
    }
    return Prune(Asha(asked["direction"], seen=asked["seen"]), trials, asked["metric"])


def _end_with_parent() -> None:
    with contextlib.suppress(OSError):
        os.read(0, 1)  # not sys.stdin, whose lock Python would miss at its end
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(run_command(main, sys.argv[1:], program="tljax sweep"))
