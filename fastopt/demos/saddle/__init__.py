"""Paths out of a saddle and along a narrow valley."""
