"""Other people's checkpoints: read, named as our parameters are, and written back.

hf:DIR, gguf:FILE, pkg:NAME -> Checkpoint (config and names as Transformers has them)
    -> a family's table -> ModelSettings and our tree of parameters, with a ledger
"""
