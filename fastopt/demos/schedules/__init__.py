"""A picture of every schedule."""
