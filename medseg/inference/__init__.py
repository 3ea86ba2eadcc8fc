"""Segmenting scans tile by tile."""
