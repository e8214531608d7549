"""The README is run and its table of algorithms is compared with the classes."""

import re

import pytest

import fastopt
from tests.processes import ROOT

README = (ROOT / "README.md").read_text()


@pytest.mark.jit
def test_the_code_runs_as_it_stands():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(blocks) >= 9
    names: dict[str, object] = {}
    for block in blocks:  # one after the other, as a reader would type them
        exec(compile(block, "README.md", "exec"), names)


def algorithms_table() -> str:
    """Return the table of algorithms, from the classes."""
    lines = ["| class | rule | state | bytes | paper |", "|---|---|---|---|---|"]
    for name in ("SGD", "Momentum", "NAG", "Adagrad", "Adadelta", "RMSprop", "Adam", "AdamW"):
        cls = getattr(fastopt, name)
        rule = cls.choose_rule(cls.defaults)
        summary = cls.__doc__.strip().splitlines()[0]
        reference = re.search(r"References\n\s+-+\n(.*?)(?:\n\n|\Z)", cls.__doc__, flags=re.S)
        paper = " ".join(reference.group(1).split())
        state = ", ".join(f"`{buffer}`" for buffer in rule.state) or "none"
        size = 4 * (3 + 2 * len(rule.state))
        lines.append(f"| `{name}` | {summary} | {state} | {size} | {paper} |")
    return "\n".join(lines)


def test_the_table_of_algorithms_is_in_date():
    assert {f"`{name}`" for name in fastopt.algorithms.__all__} <= set(
        re.findall(r"`\w+`", algorithms_table())
    )
    between = re.search(r"<!-- algorithms -->\n(.*?)\n?<!-- /algorithms -->", README, flags=re.S).group(1)
    assert between == algorithms_table()
