"""Training: optimizer, state, sharding, step, population, checkpoint, record, loop.

Empty on purpose: report/ reads records without importing JAX.
"""
