"""From the records of finished runs to answers: statistics, figures, page; no jax."""
