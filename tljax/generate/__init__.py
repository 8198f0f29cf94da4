"""Text that a model writes: sampling, decoding through a cache, and where it stops."""
