"""python -m experiments: what there is, what was found, in a few lines."""

import pytest

from experiments.__main__ import main
from tljax.settings import InputError


def test_every_experiment_is_listed_with_question_cost_and_answer(capsys):
    main([])
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("low_shot: Does pre-training help on few labels, and by how much?")
    assert lines[at + 1].startswith("  full: run") and "of computing" in lines[at + 1]
    assert lines[at + 2].startswith("    PASS: transfer beats scratch at n = 50;")
    assert any(
        line == "finetune_ladder: Which way to fine-tune helps on few labels?"
        for line in lines
    )


def test_words_are_refused():
    with pytest.raises(InputError, match="low_shot"):
        main(["low_shot"])
