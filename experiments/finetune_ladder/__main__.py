"""python -m experiments.finetune_ladder --config=configs/finetune_ladder.py:quick
--workdir=DIR"""

from experiments.ablation.command import main

DESCRIPTION = """
Which of the established ways to fine-tune helps on few labels? Pre-trains a small
language model, fine-tunes it in ten ways (head only, all weights, discriminative rates,
slanted triangular rates, gradual unfreezing, chain-thaw, LP-FT, after the task's own
text, ULMFiT), each tuned with equal effort, scores items of the same and of another
domain, and judges what the papers say. Called again, it goes on where it stopped.

Presets of configs/finetune_ladder.py: smoke, quick, full.
"""

if __name__ == "__main__":
    main("finetune_ladder", DESCRIPTION)
