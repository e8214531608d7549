"""The command ``bench``: the speed of the memory here, and how near to it each algorithm's step comes."""
