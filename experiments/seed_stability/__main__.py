"""python -m experiments.seed_stability --config=configs/seed_stability.py:quick
--workdir=DIR"""

from experiments.ablation.command import main
from experiments.seed_stability.measures import STATISTICS
from experiments.seed_stability.sections import tell

DESCRIPTION = """
How much of a fine-tuning result is chance, and what makes it less? Fine-tunes one small
language model on one labelled subset with many seeds: with and without Adam's bias
correction, for 3 and 20 epochs, with and without warm-up, and at ten times the rate;
crosses first weights with data orders; judges what the papers say. Called again, it
goes on where it stopped.

Presets of configs/seed_stability.py: smoke, quick, full.
"""

if __name__ == "__main__":
    main("seed_stability", DESCRIPTION, STATISTICS, tell)
