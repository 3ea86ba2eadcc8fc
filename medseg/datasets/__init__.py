"""Layouts on disk that become cases: labels, splits, checks, and phantoms."""
