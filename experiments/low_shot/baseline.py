"""The honest opponent: TF-IDF of words and word pairs, logistic regression.

Same subsets, same test items, no tuning: C = 10, sublinear term frequencies.
"""

import pathlib

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from experiments.low_shot.stages import predictions_of
from tljax.cli.finetune import write_predictions
from tljax.data.labelled import LabelledSet, nested_subset
from tljax.train.files import write_json


def run_baseline(
    train: LabelledSet, test: LabelledSet, *, n: int, seed: int, folder: pathlib.Path
) -> None:
    """Fits on the seed's n items and writes predictions/test.jsonl.

    Args:
      train: the whole training split; the subset is that of every other arm.
      test: scored.
      n: labelled items.
      seed: of the subset.
      folder: the run folder; left alone if it has its predictions.
    """
    path = predictions_of(folder)
    if path.exists():
        return
    chosen = nested_subset(train.labels, n, seed, train.classes)
    probabilities_IC = _probabilities(train, chosen, test)
    write_json(
        folder / "config.json",
        {"kind": "tfidf", "n": n, "seed": seed, "C": 10, "ngrams": [1, 2]},
    )
    write_predictions(path, test, probabilities_IC)


def _probabilities(
    train: LabelledSet, chosen: np.ndarray, test: LabelledSet
) -> np.ndarray:
    """float64 [items, classes]; a class that was not chosen from has probability 0."""
    labels = train.labels[chosen]
    seen = np.unique(labels)
    probabilities_IC = np.zeros((len(test), len(train.classes)))
    if len(seen) == 1:  # a regression needs two
        probabilities_IC[:, seen] = 1.0
        return probabilities_IC
    texts = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    features = texts.fit_transform([train.texts[i] for i in chosen])
    model = LogisticRegression(C=10, max_iter=2000).fit(features, labels)
    probabilities_IC[:, model.classes_] = model.predict_proba(
        texts.transform(test.texts)
    )
    return probabilities_IC
