"""Pieces of work in other processes: what fails is counted, and the rest is done."""

from __future__ import annotations

from functools import partial

from audioxai_utils.audit.workers import run


def test_a_piece_that_fails_costs_no_other(capfd):
    pieces = partial(dict, a=("a: fine", True), c=("c: one method", False))
    assert run(["a", "missing", "c"], pieces, dict.__getitem__, 1) == 2
    said = capfd.readouterr()
    assert said.out.splitlines() == ["a: fine", "missing failed", "c: one method"]
    assert "KeyError: 'missing'" in said.err


def test_how_far_the_work_is_can_be_told_instead_of_a_line_a_piece(capfd):
    pieces, told = partial(dict, a=("a: fine", True), b=("b: fine", True), c=("c: one method", False)), []
    assert run(["a", "b", "c"], pieces, dict.__getitem__, 2, tell=lambda *given: told.append(given)) == 1
    assert told == [(1, 3), (2, 3), (3, 3)] and capfd.readouterr().out.splitlines() == ["c: one method"]


def test_a_process_that_dies_is_counted_and_nothing_begins_when_the_time_is_over(capfd):
    assert run(["a"], partial(dict, a=3), dict.__getitem__, 1) == 1  # no line: the process ends with an error
    assert run(["a"], partial(dict, a=("fine", True)), dict.__getitem__, 1, stop=0.0) == 0
    assert "a: left out, the time is over" in capfd.readouterr().out
