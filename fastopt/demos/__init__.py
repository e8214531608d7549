"""Small real programs: ``python -m fastopt demo NAME``. They need the extra ``fastopt[demo]``."""
