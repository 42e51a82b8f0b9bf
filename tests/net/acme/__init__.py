"""Automatic certificates."""
