"""Pseudonyms of users."""
