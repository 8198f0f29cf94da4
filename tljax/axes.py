"""The letters that array names end in: x_BLD has axes batch, position, width.

A file that uses a letter not listed here, or one of these for something else, is wrong.
"""

AXES = {
    "B": "batch: packed rows of tokens (a row may hold several examples)",
    "L": "position in a row",
    "Q": "query position",
    "K": "key position",
    "D": "width of the residual stream",
    "H": "head",
    "E": "width of one head; of its angles, half",
    "F": "inner width of the feed-forward layer",
    "V": "vocabulary",
    "G": "query head among those that share a key head",
    "N": "token of a batch laid flat (B x L)",
    "M": "example slot of a packed row (segment M + 1 of the row)",
    "R": "rank, of an adapter or of a decomposition",
    "C": "class",
    "S": "run: member of a population",
    "W": "first weights, in a grid of runs",
    "O": "data order, in a grid of runs",
    "T": "step of a plan",
    "I": "item of a split",
    "J": "bootstrap resample",
    "Z": "number of labels",
    "X": "the last axis, whichever it is",
}
