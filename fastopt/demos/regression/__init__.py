"""A line through points: the textbook's loop with Adam, and the other methods."""
