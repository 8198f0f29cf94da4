"""Every leaf is accounted for: copied, fresh or left; never silently."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.settings import InputError
from tljax.transfer.transplant import Entry, flat, transplant

SOURCE = {
    "embedding": {"tokens": np.full((3, 2), 1.0)},
    "layers": {
        "0": {"kernel": np.full((2, 2), 2.0)},
        "10": {"kernel": np.ones((2, 2))},
    },
    "output": {"kernel": np.full((3, 2), 4.0)},
}
TARGET = {
    "embedding": {"tokens": jnp.zeros((3, 2), jnp.bfloat16)},
    "layers": {"0": {"kernel": jnp.zeros((2, 2))}, "10": {"kernel": jnp.zeros((2, 2))}},
    "head": {"kernel": jnp.full((2, 5), 7.0), "bias": jnp.zeros(5)},
}


def test_a_head_is_fresh_and_the_rest_is_copied():
    grown, ledger = transplant(SOURCE, TARGET, fresh=["head/.*"], left=["output/.*"])
    assert jax.tree.structure(grown) == jax.tree.structure(TARGET)
    for new, old in zip(jax.tree.leaves(grown), jax.tree.leaves(TARGET), strict=True):
        assert (new.shape, new.dtype) == (old.shape, old.dtype)
    found = {path: float(leaf.ravel()[0]) for path, leaf in flat(grown).items()}
    assert found == {
        "embedding/tokens": 1.0,
        "head/bias": 0.0,
        "head/kernel": 7.0,
        "layers/0/kernel": 2.0,
        "layers/10/kernel": 1.0,
    }
    assert ledger == [
        Entry("embedding/tokens", "copied", (3, 2)),
        Entry("head/bias", "fresh", (5,)),
        Entry("head/kernel", "fresh", (2, 5)),
        Entry("layers/0/kernel", "copied", (2, 2)),
        Entry("layers/10/kernel", "copied", (2, 2)),
        Entry("output/kernel", "left", (3, 2)),
    ]


def test_a_leaf_that_both_have_may_stay_fresh():
    target = SOURCE | {"output": {"kernel": np.zeros((9, 9))}}
    grown, ledger = transplant(SOURCE, target, fresh=["output/kernel"], left=[])
    assert not grown["output"]["kernel"].any()
    assert Entry("output/kernel", "fresh", (9, 9)) in ledger and len(ledger) == 4


def test_neither_tree_is_changed():
    grown, _ = transplant(SOURCE, TARGET, fresh=["head/.*"], left=["output/.*"])
    grown["embedding"]["tokens"] = None
    assert SOURCE["embedding"]["tokens"].sum() == 6
    assert not TARGET["layers"]["0"]["kernel"].any()


@pytest.mark.parametrize(
    ("fresh", "left", "said"),
    [
        ([], ["output/.*"], "the source has no head/bias; it holds embedding/tokens, "),
        (["head/.*"], [], "the source's output/kernel has no place in the new model"),
        (["head/.*", "heads/.*"], ["output/.*"], "match no leaf: heads/.*"),
        (["head/.*"], ["output/.*", "layers/.*"], "match no leaf: layers/.*"),
        (["head"], ["output/.*"], "has no head/bias"),  # patterns match whole paths
    ],
)
def test_a_leaf_or_a_pattern_that_nobody_accounts_for_is_an_error(fresh, left, said):
    with pytest.raises(InputError, match=said):
        transplant(SOURCE, TARGET, fresh=fresh, left=left)


def test_another_shape_is_an_error_even_where_it_would_broadcast():
    target = TARGET | {"layers": {"0": {"kernel": jnp.zeros((2, 2))},
                                  "10": {"kernel": jnp.zeros((1, 2))}}}  # fmt: skip
    with pytest.raises(
        InputError, match=r"layers/10/kernel has shape \(2, 2\) in .*1, 2"
    ):
        transplant(SOURCE, target, fresh=["head/.*"], left=["output/.*"])
