"""An evolution strategy learns to balance a pole: no gradients but those of ``update(globalg)``."""
