import subprocess
import sys
from pathlib import Path

import pytest

import fastopt
from fastopt.__main__ import main
from fastopt.demos import command
from fastopt.demos.command import DEMOS, with_default

ROOT = Path(fastopt.__file__).parents[1]


def test_without_arguments_lists_the_commands(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert "python -m fastopt" in shown
    assert all(name in shown for name in ("demo", "bench", "info", *DEMOS))


@pytest.mark.parametrize("argv", [["--help"], ["demo", "--help"], ["demo", "-h"]])
def test_help_lists_the_demos(argv, capsys):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in DEMOS)


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"fastopt {fastopt.__version__}\n"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], []),
        (["--version"], ["--version"]),
        (["demo"], ["demo", "digits"]),
        (["demo", "--epochs", "3"], ["demo", "digits", "--epochs", "3"]),
        (["demo", "--help"], ["demo", "--help"]),
        (["demo", "saddle", "--no-gif"], ["demo", "saddle", "--no-gif"]),
    ],
)
def test_the_default_demo(argv, expected):
    assert with_default(argv) == expected


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["dmeo"], "invalid choice: 'dmeo'"),
        (["demo", "digit"], "invalid choice: 'digit' (choose from"),
        (["bench", "AdamW"], "unrecognized arguments: AdamW"),
        (["info", "all"], "unrecognized arguments: all"),
        (["demo", "--epochs", "0"], "--epochs: must be a whole number >= 1, got '0'"),
        (["demo", "--hidden", "8", "x"], "--hidden: must be a whole number >= 1, got 'x'"),
        (["demo", "regression", "--seed", "-1"], "--seed: "),
        (["demo", "saddle", "--epochs", "3"], "unrecognized arguments: --epochs 3"),
    ],
)
def test_wrong_arguments(argv, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert message in last_line


@pytest.fixture
def fresh_demos(monkeypatch):
    """Have the demos' modules imported anew, and the others put back afterwards."""
    for name in [name for name in sys.modules if name.startswith("fastopt.demos.")]:
        if name != command.__name__:
            monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("fresh_demos")
@pytest.mark.parametrize(
    ("module", "package"),
    [("matplotlib", "matplotlib"), ("sklearn", "scikit-learn"), ("tqdm", "tqdm"), ("PIL", "pillow")],
)
def test_a_missing_package_is_one_line(module, package, monkeypatch, capsys, tmp_path):
    demo = "saddle" if module == "PIL" else "digits"
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    if module == "PIL":
        pytest.importorskip("matplotlib.figure")
    assert main(["demo", demo, "--out", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f'python -m fastopt: the demo {demo} needs {package}, which is missing: pip install "fastopt[demo]"\n'
    )


def test_another_missing_module_is_an_error_of_ours(monkeypatch, tmp_path):
    monkeypatch.setattr(
        command.importlib, "import_module", lambda name: (_ for _ in ()).throw(ModuleNotFoundError(name="x"))
    )
    with pytest.raises(ModuleNotFoundError):
        main(["demo", "--out", str(tmp_path)])


def test_a_folder_that_cannot_be_made_is_one_line(capsys, tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert main(["demo", "--out", str(file)]) == 1
    assert capsys.readouterr().err == f"python -m fastopt: {file}: File exists\n"


def python(*arguments, cwd):
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


def test_a_real_run_writes_into_the_current_folder(tmp_path, monkeypatch):
    for package in ("matplotlib", "tqdm"):
        pytest.importorskip(package)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = python("-W", "error", "-m", "fastopt", "demo", "regression", "--epochs", "20", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "least squares" in done.stdout
    assert done.stdout.endswith("Lines and losses: fastopt-regression.png\n")
    assert [path.name for path in tmp_path.iterdir()] == ["fastopt-regression.png"]


def test_importing_fastopt_imports_no_demo_and_no_extra(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    code = "import sys, fastopt; print([m for m in sys.modules if m.startswith(('fastopt.demos', 'matplotlib', 'sklearn', 'tqdm'))])"
    assert python("-c", code, cwd=tmp_path).stdout == "[]\n"
