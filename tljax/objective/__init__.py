"""Losses as (sum, weight) pairs, divided once by whoever reports them."""
