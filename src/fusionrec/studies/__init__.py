"""Searches and comparisons over models: everything that fits many of them."""
