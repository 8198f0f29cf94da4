"""What can be set beside a method: keys, papers, costs, when; told, not computed here.

BESIDE is the table of `tljax methods` and docs/methods.md; each key acts where its
config.KEY is read: train/optimizer.py, train/step.py, objective/, transfer/start.py.
"""

from typing import NamedTuple


class Beside(NamedTuple):
    """A regulariser, a schedule, a start.

    Attributes:
      name: for `tljax methods show`.
      key: what switches it on, with a value to begin with.
      meaning: what it does, in a line.
      paper: whose.
      cost: in trainable numbers, memory and time, beside the same run without it.
      when: to use it.
    """

    name: str
    key: str
    meaning: str
    paper: str
    cost: str
    when: str


_NOTHING = "none"
_START = "a copy of the first weights, shared by a population's members"

BESIDE = {
    one.name: one
    for one in (
        Beside(
            "reinit", "init.reinit_layers=2",
            "the top k layers and the final norm begin anew",
            "Zhang et al. 2021, section 5", _NOTHING,
            "runs of few labels fail or scatter; the top layers fit their old task",
        ),
        Beside(
            "lp_ft", "head.start=probe",
            "the head begins as the ridge probe on frozen features (LP-FT)",
            "Kumar et al. 2022",
            "one pass over the labelled items, before the first step",
            "what the model knows should not be torn up by a random head",
        ),
        Beside(
            "probe", "transfer.method=head",
            "with head.start=probe and optim.lr_peak=0: the closed-form probe alone,"
            " its penalty chosen on the labelled items",
            "Kumar et al. 2022",
            "one pass over the items, a fit of a second; no gradient",
            "the first figure to get of a model, and the one to beat",
        ),
        Beside(
            "layer_decay", "optim.layer_decay=0.4",
            "lower layers learn more slowly (discriminative rates)",
            "ULMFiT, Howard & Ruder 2018, section 3.2", _NOTHING,
            "after pre-training, where all layers move; near 1 in deep models",
        ),
        Beside(
            "schedule", "optim.schedule=slanted",
            "trapezoid (linear where warmup + cooldown = 1), cosine, or the slanted"
            " triangle",
            "ULMFiT, equation 3; cosine: Loshchilov & Hutter 2017, equation 5",
            _NOTHING, "slanted: few steps; cosine and linear: where a paper has them",
        ),
        Beside(
            "bias_correction", "optim.bias_correction=false",
            "AdamW as BERT's authors had it, moments not corrected for their start",
            "Zhang et al. 2021, section 4; Mosbach et al. 2021", _NOTHING,
            "to reproduce old results; else it makes short runs fail more often",
        ),
        Beside(
            "gradual", "optim.unfreeze=gradual",
            "the head first, then layer after layer from the top",
            "ULMFiT, section 3.3",
            "none saved: gradients are computed for all, and waiting layers stay",
            "few labels and a head that begins at random",
        ),
        Beside(
            "chain", "optim.unfreeze=chain",
            "the head, each layer alone from the bottom up, then all (chain-thaw)",
            "Felbo et al. 2017, section 3.3", "as gradual",
            "comparisons with the literature; it wants many steps",
        ),
        Beside(
            "lora_plus", "optim.lora_plus=16",
            "LoRA's b matrices learn faster",
            "LoRA+, Hayou et al. 2024", _NOTHING,
            "with lora or dora where wide models learn slowly",
        ),
        Beside(
            "rank_stabilized", "transfer.scaling=rank_stabilized",
            "LoRA's addition is scaled by alpha / sqrt(R), not alpha / R (rsLoRA)",
            "Kalajdzievski 2023", _NOTHING, "with ranks of 32 and more",
        ),
        Beside(
            "dropout", "model.dropout=0.1",
            "of the model's branches; transfer.dropout, of an adapter's inputs",
            "Srivastava et al. 2014, section 4", "some per cent of a step",
            "many passes over few labels",
        ),
        Beside(
            "weight_decay", "optim.weight_decay=0.01",
            "matrices decay towards zero, decoupled from the gradient",
            "Loshchilov & Hutter 2019, algorithm 2", _NOTHING,
            "by default, small; l2_start instead where the first weights are good",
        ),
        Beside(
            "label_smoothing", "regularize.label_smoothing=0.1",
            "a share of the label for all classes",
            "Szegedy et al. 2016, section 7", _NOTHING,
            "wrong labels, or probabilities that are too sure",
        ),
        Beside(
            "l2_start", "regularize.l2_start=0.01",
            "towards the weights that it began with (L2-SP)",
            "Li et al. 2018, equations 2 and 3", _START,
            "few labels in a domain near that of pre-training",
        ),
        Beside(
            "ewc", "regularize.ewc=1",
            "the same, by how much each weight matters for other text",
            "Kirkpatrick et al. 2017, equation 3",
            f"{_START}, and one of importances; a pass over 256 rows of that text",
            "what the model could do before must not be forgotten",
        ),
        Beside(
            "mixout", "regularize.mixout=0.5",
            "a share of the weights back where they began, every step",
            "Lee et al. 2020, equation 5",
            f"{_START}; a random number a weight and step",
            "large models whose runs on few labels fail",
        ),
        Beside(
            "wise", "regularize.wise=0.5",
            "at the end, part of the way back (WiSE-FT)",
            "Wortsman et al. 2022, equation 1", _START,
            "it will meet text of other domains too",
        ),
        Beside(
            "rdrop", "regularize.rdrop=1",
            "two passes of other dropout must agree",
            "R-Drop, Wu et al. 2021, equations 1 to 3", "twice the time of a step",
            "dropout alone is not enough",
        ),
        Beside(
            "neftune", "regularize.neftune=5",
            "noise on the embedding", "NEFTune, Jain et al. 2023, algorithm 1",
            "next to none", "short texts of one style",
        ),
        Beside(
            "lm_weight", "regularize.lm_weight=0.5",
            "next words of the labelled texts beside the labels",
            "GPT-1, Radford et al. 2018, equation 5",
            "the product with the vocabulary, as in pre-training",
            "labelled texts of many words, and models of the next word",
        ),
        Beside(
            "replay", "regularize.replay=0.3",
            "next words of other text, every few steps",
            "Robins 1995",
            "a step of pre-training every replay_every steps",
            "what the model could do before must not be forgotten",
        ),
        Beside(
            "ema", "regularize.ema=0.99",
            "an average of the parameters is validated and kept",
            "Polyak & Juditsky 1992", "a copy of what moves, a member",
            "a rate that does not fall, or noisy validations",
        ),
        Beside(
            "patience", "record.patience=2",
            "early stopping: a run ends when so many validations were no better",
            "Prechelt 1998, section 2 (criterion UP)", "time saved",
            "validation items enough to tell better from worse",
        ),
        Beside(
            "tapt", "corpus.source=csv:reviews.csv?text=review",
            "pre-training goes on on the task's own text first, as a run of its own",
            "Gururangan et al. 2020, section 4; ULMFiT, section 3.2",
            "a run of pre-training",
            "unlabelled text of the task is there, and unlike that of pre-training",
        ),
        Beside(
            "soup", "tljax soup",
            "the average of several runs' weights, uniform or greedy, as a run",
            "Wortsman et al. 2022, section 2", "several runs, but one to predict with",
            "a sweep's runs are there anyway",
        ),
    )
}  # fmt: skip
