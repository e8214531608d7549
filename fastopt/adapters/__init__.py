"""fastopt inside the trainers that people already have: one module for each host, imported on demand."""
