"""Many runs of one config over a space of its values: which, and which end early."""
