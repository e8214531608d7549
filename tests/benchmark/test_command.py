import json
import os
import sys

import pytest

from fastopt.__main__ import main
from fastopt.benchmark import arithmetic, command, measurement, streams
from fastopt.benchmark.measurement import Case, Measured
from fastopt.benchmark.subjects import NAMES, USUAL
from tests.benchmark.results import measured


@pytest.fixture
def asked(monkeypatch):
    """Have nothing measured; return what was asked for."""
    found = {"measured": measured()}

    def measure(cases, seconds, tell):
        found.update(cases=cases, seconds=seconds)
        for what in ["memory", *cases]:
            tell(str(what))
        return found["measured"]

    monkeypatch.setattr(command, "measure", measure)
    monkeypatch.setattr(command, "available_threads", lambda: 5)
    return found


def test_what_is_measured_by_default(asked, capsys):
    assert main(["bench"]) == 0
    assert asked["cases"] == [Case(name, 10**k, "float32", 5) for k in range(2, 9) for name in USUAL]
    assert asked["seconds"] == 45.0
    said = capsys.readouterr()
    assert "Steps, float32:" in said.out
    assert said.err == ""


def test_options(asked):
    given = ["--algorithms", "lion,AdamW,Lion", "--sizes", "1e4,100", "--dtypes", "float64,float32"]
    assert main(["bench", *given, "--threads", "2,1", "--seconds", "3"]) == 0
    assert asked["cases"] == [
        Case(name, size, dtype, threads)
        for dtype in ("float64", "float32")
        for threads in (2, 1)
        for size in (100, 10**4)
        for name in ("Lion", "AdamW")
    ]
    assert asked["seconds"] == 3.0


def test_all_algorithms(asked):
    assert main(["bench", "--algorithms", "all", "--sizes", "10"]) == 0
    assert [case.algorithm for case in asked["cases"]] == list(NAMES)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("algorithms", "AdmW", "there is no algorithm 'AdmW'; did you mean AdamW"),
        ("algorithms", "zzz", f"there is no algorithm 'zzz'; there are {NAMES[0]}, "),
        ("algorithms", "AdamW,", "there is no algorithm ''; there are"),
        ("algorithms", "lbfgs", "LBFGS is not measured: its step is a search that calls your loss"),
        ("algorithms", "SGD,SparseAdam", "SparseAdam is not measured: it updates rows of tables"),
        ("sizes", "1e4,many", "must be whole numbers from 1 to 1e12, such as 1e4,1e6, got 'many'"),
        ("sizes", "0", "must be whole numbers from 1 to 1e12, such as 1e4,1e6, got '0'"),
        ("sizes", "1e13", "must be whole numbers from 1 to 1e12, such as 1e4,1e6, got '1e13'"),
        ("sizes", "2.5", "must be whole numbers from 1 to 1e12, such as 1e4,1e6, got '2.5'"),
        ("dtypes", "float16", "must be float32, float64 or both, got 'float16'"),
        ("threads", "0", "must be whole numbers >= 1, such as 1,2, got '0'"),
        ("threads", "two", "must be whole numbers >= 1, such as 1,2, got 'two'"),
        ("seconds", "0", "must be a number > 0, got '0'"),
        ("seconds", "inf", "must be a number > 0, got 'inf'"),
        ("seconds", "soon", "must be a number > 0, got 'soon'"),
    ],
)
def test_wrong_options(option, value, message, capsys, asked):
    with pytest.raises(SystemExit) as end:
        main(["bench", f"--{option}", value])
    assert end.value.code == 2
    assert f"error: argument --{option}: {message}" in capsys.readouterr().err
    assert "cases" not in asked


def test_the_help_says_what_each_option_takes_and_what_is_left_out(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as end:
        main(["bench", "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for option in (
        "algorithms NAME,...",
        "sizes N,...",
        "dtypes NAME,...",
        "threads N,...",
        "seconds S",
        "json FILE",
    ):
        assert f"\n  --{option}" in shown
    assert "usual: SGD,Lion,AdamW,Adan,LAMB,Muon" in shown
    assert "Not measured: LBFGS: its step is a search" in shown


def test_wrong_settings_are_one_line(monkeypatch, capsys):
    monkeypatch.setenv("FASTOPT_NUM_THREADS", "x")
    assert main(["bench"]) == 1
    assert capsys.readouterr().err == (
        "python -m fastopt: FASTOPT_NUM_THREADS must be a whole number >= 1, got 'x'\n"
    )


def test_the_json(asked, tmp_path, capsys):
    path = tmp_path / "new" / "results.json"
    assert main(["bench", "--sizes", "100", "--json", str(path)]) == 0
    assert capsys.readouterr().out.endswith(f"\nResults: {path}\n")
    found = json.loads(path.read_text())
    assert len(found["results"]) == len(asked["measured"].results)
    assert found["options"] == {
        "algorithms": list(USUAL),
        "sizes": [100],
        "dtypes": ["float32"],
        "threads": None,
        "seconds": 45.0,
    }


@pytest.mark.parametrize(
    ("given", "file"), [("a.png", "a.png"), ("", "fastopt-bench.png"), ("new", "new/fastopt-bench.png")]
)
def test_the_picture(asked, tmp_path, capsys, monkeypatch, given, file):
    pytest.importorskip("matplotlib")
    from fastopt.benchmark import figure

    monkeypatch.setattr(figure, "draw", lambda found, about, path: drawn.append((found, path)))
    drawn = []
    assert main(["bench", "--png", str(tmp_path / given)]) == 0
    assert capsys.readouterr().out.endswith(f"\nPicture: {tmp_path / file}\n")
    assert drawn == [(asked["measured"], tmp_path / file)]
    assert (tmp_path / file).parent.is_dir()


def test_no_picture_of_nothing(asked, tmp_path):
    pytest.importorskip("matplotlib")
    asked["measured"] = Measured()
    assert main(["bench", "--png", str(tmp_path)]) == 0
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_is_said_before_a_minute_is_lost(asked, monkeypatch, capsys, tmp_path):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("fastopt.benchmark.figure", "fastopt.demos.figures"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", "--png", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        'python -m fastopt: --png needs matplotlib, which is missing: pip install "fastopt[demo]"\n'
    )
    assert "cases" not in asked
    assert main(["bench"]) == 0  # the table needs none


def test_another_missing_module_is_an_error_of_ours(monkeypatch, asked):
    def fail(name):
        raise ModuleNotFoundError(name="x")

    monkeypatch.setattr(command.importlib, "import_module", fail)
    with pytest.raises(ModuleNotFoundError):
        main(["bench", "--png", "x.png"])


def test_files_that_cannot_be_written_are_one_line(asked, capsys, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    assert main(["bench", "--json", str(file / "x.json")]) == 1
    assert capsys.readouterr().err == f"python -m fastopt: {file}: File exists\n"
    assert main(["bench", "--json", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"python -m fastopt: {tmp_path}: Is a directory\n"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert main(["bench", "--json", str(tmp_path / "x.json")]) == 1
    assert capsys.readouterr().err == f"python -m fastopt: {tmp_path}: Permission denied\n"
    assert "cases" not in asked


def test_wrong_answers_are_a_failure(asked, capsys):
    asked["measured"].wrong.append("SGD: is wrong")
    assert main(["bench"]) == 1
    assert capsys.readouterr().err == "python -m fastopt: wrong answer: SGD: is wrong\n"


def test_an_interrupt_is_one_line(monkeypatch, capsys):
    def measure(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "measure", measure)
    assert main(["bench"]) == 130
    assert capsys.readouterr().err == "python -m fastopt: stopped\n"


def test_a_real_run(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(measurement, "room", lambda: 1 << 16)
    monkeypatch.setattr("fastopt.machine.caches", list)
    monkeypatch.setattr(streams, "_LEAST", 0)
    monkeypatch.setattr(arithmetic, "_FEW", 16)
    monkeypatch.setattr(arithmetic, "_MANY", 16)
    path = tmp_path / "results.json"
    given = ["--algorithms", "SGD,LAMB,Muon", "--sizes", "100,1e9", "--seconds", "0.1", "--json", str(path)]
    assert main(["bench", *given]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "left out: LAMB, 1e9: needs 14.9 GiB" in said.out
    found = json.loads(path.read_text())
    assert [(each["algorithm"], each["parameters"]) for each in found["results"]] == [
        ("SGD", 100),
        ("LAMB", 100),
        ("Muon", 100),
    ]
    assert all(each["seconds"] > 0 for each in found["results"])
    assert {each["stream"] for each in found["memory"]} == {"copy", "triad", "update"}
    assert len(found["missing"]) == 3
