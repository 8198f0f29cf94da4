"""The network: pure functions over a plain dict of parameters; Linen lives here."""
