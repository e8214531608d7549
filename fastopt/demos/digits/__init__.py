"""A network learns handwritten digits, with every method, and every method is timed."""
