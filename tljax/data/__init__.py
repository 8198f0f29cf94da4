"""Text and labels as numpy arrays: sources, tokenizer, packing, corpus, batches."""
