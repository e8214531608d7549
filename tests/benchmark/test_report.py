import dataclasses
import json

import pytest

from fastopt.benchmark import report
from fastopt.benchmark.measurement import Measured, Result
from tests.benchmark.results import ABOUT, measured, result

SHOWN = """\
A processor, 4 cores
L1 data 32K, L2 unified 1M
python 3.13.0, fastopt 0.1.0

Memory, in GB/s (copy: 1 read, 1 write; triad: 2, 1; update: 4, 3, as AdamW):

                            copy  triad  update
-----------------------------------------------
L1      16 KiB, 1 thread     400    400     400
memory  256 MiB, 1 thread     20     20      20
memory  256 MiB, 4 threads    60     60      60

Arithmetic, in 10^9 operations a second: 100 on 1 thread, 390 on 4 threads

Steps, float32:

parameters  algorithm  time/step  spread  params/s   GB/s  limit  of limit
--------------------------------------------------------------------------
100         SGD           1.1 µs    ±10%    90.9 M   2.55     60        4%
100         Muon          1.1 µs    ±10%    90.9 M  >2.55

1e6         SGD          1.00 ms    ±10%     999 M     28     60       47%
1e6         Muon         1.00 ms    ±10%     999 M    >28

left out: Muon, 1e7: a step would take about 9 s; give it more --seconds

GB/s: bytes that"""


def test_the_text():
    shown = report.text(measured(("SGD", "Muon"), (100, 10**6)), ABOUT)
    assert shown.replace("   1 ms", "1.00 ms")[: len(SHOWN)] == SHOWN
    assert all(len(line) <= 110 for line in shown.splitlines())


def test_the_text_of_several_dtypes_and_threads():
    found = measured(("SGD",), (100,), threads=1)
    found.results += measured(("SGD",), (100,), dtype="float64").results
    shown = report.text(found, ABOUT)
    assert "\nSteps, float32, 1 thread:\n" in shown
    assert "\nSteps, float64, 4 threads:\n" in shown
    assert "\nleft out: Muon, 1e7, float32, 4 threads: a step" in shown


def test_matrix_products_are_explained_where_there_are_some():
    assert "matrix products" in report.text(measured(("Muon",)), ABOUT)
    assert "matrix products" not in report.text(measured(("SGD",)), ABOUT)


def test_next_to_nothing_is_not_zero():
    found = Measured(results=[result(of_limit=0.004), result("SGD", of_limit=1.02)])
    lines = [line for line in report.text(found, ABOUT).splitlines() if line.startswith("1e3")]
    assert [line.split()[-1] for line in lines] == ["<1%", "102%"]


def test_a_busy_machine_is_said_to_be():
    busy = {**ABOUT, "machine": {**ABOUT["machine"], "load_before": 3.5}}
    assert "Other programs are running (load 3.5): expect noise." in report.text(measured(), busy)
    unknown = {**ABOUT, "machine": {**ABOUT["machine"], "load_before": None, "caches": []}}
    assert report.text(measured(), unknown).startswith("A processor, 4 cores\npython 3.13.0")


def test_without_results_nothing_is_explained():
    found = dataclasses.replace(measured(), results=[])
    assert report.text(found, ABOUT).endswith("give it more --seconds")


def test_the_json():
    found = measured(("AdamW",), (100,))
    options = {"algorithms": ("AdamW",), "seconds": 1.0}
    read = json.loads(json.dumps(report.as_json(found, options, ABOUT), allow_nan=False))
    expected = [
        "format",
        "date",
        "machine",
        "versions",
        "cutoff_bytes",
        "options",
        "memory",
        "peaks",
        "results",
        "missing",
    ]
    assert list(read) == expected
    assert read["format"] == 1
    assert read["options"] == {"algorithms": ["AdamW"], "seconds": 1.0}
    assert list(read["results"][0]) == [field.name for field in dataclasses.fields(Result)]
    assert read["results"][0]["shape"] == [100]
    assert read["memory"][0] == {
        "stream": "copy",
        "where": "L1",
        "bytes": 16384,
        "threads": 1,
        "gb_per_s": 400.0,
    }
    (missing,) = read["missing"]
    assert list(missing) == ["algorithm", "size", "dtype", "threads", "reason"]
    assert report.as_json(found, {})["machine"]["cores"] >= 1  # of this machine, if it is not given


@pytest.mark.parametrize(
    ("function", "number", "shown"),
    [
        (report.duration, 9.994e-4, "999 µs"),
        (report.duration, 9.996e-4, "1 ms"),
        (report.duration, 0.99951, "1 s"),
        (report.count, 1000, "1e3"),
        (report.count, 12_000, "12,000"),
        (report.count, 10, "10"),
        (report.rate, 12.0, "12"),
        (report.rate, 999.6e6, "1 G"),
        (report.size, 100, "100 bytes"),
        (report.size, 3 << 29, "1.5 GiB"),
    ],
)
def test_numbers(function, number, shown):
    assert function(number) == shown
