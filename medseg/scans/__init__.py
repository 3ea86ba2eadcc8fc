"""Scans and masks, read and written box by box."""
