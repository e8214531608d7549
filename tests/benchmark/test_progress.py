import io

from fastopt.benchmark.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_one_line_that_is_removed_in_the_end():
    shown = Terminal()
    progress = Progress(3, shown)
    for what in ("memory", "AdamW 1e2", "SGD"):
        progress(what)
    progress.end()
    *lines, end, nothing = shown.getvalue().split("\r")[1:]
    assert lines == [
        f"[{'-' * 30}] 0/3 memory",
        f"[{'#' * 10}{'-' * 20}] 1/3 AdamW 1e2",
        f"[{'#' * 20}{'-' * 10}] 2/3 SGD      ",  # over the rest of the longer one
    ]
    assert end == " " * len(lines[1])
    assert nothing == ""


def test_a_file_sees_nothing():
    shown = io.StringIO()
    progress = Progress(3, shown)
    progress("memory")
    progress.end()
    assert shown.getvalue() == ""


def test_the_bar_is_on_the_standard_error_stream(monkeypatch):
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    Progress(1)("memory")
    assert "memory" in shown.getvalue()
