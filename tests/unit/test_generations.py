"""The past of the Maglev tables: what is remembered, in which order, for how long, and that it survives a file."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode import maglev
from lbnode.chance import generations, memory
from lbnode.chance.generations import Generation, Past, Record, as_json, from_json, generation_of, merged
from lbnode.maglev import Server, build

WEB = "198.51.100.1:80/tcp"
DAY = 86400.0
MACHINES = ["l4-1", "l4-2"]


def table(numbers, down=(), weight=100):
    servers = [Server(f"192.0.2.{number}", 80, 0 if number in down else weight, weight) for number in numbers]
    return build(servers, 4)


def uses(numbers, down=(), at=0.0, failed=()):
    return generations.now({WEB: table(numbers, down)}, failed, at)


def tables(past):
    return [generation.table for generation in past.generations(WEB)]


def test_a_generation_is_its_table():
    some = table([1, 2, 3], [2])
    assert generation_of(some).table == some
    assert generation_of(some).down == (1,)
    assert generation_of(some).structure == generation_of(table([1, 2, 3])).structure


def test_who_never_had_a_weight_holds_no_slots():
    some = build([Server("192.0.2.1", 80, 100, 100), Server("192.0.2.2", 80, 0, 0)], 4)
    assert generation_of(some).table.slots == some.slots
    assert len(generation_of(some).structure.servers) == 1


def test_the_table_in_use_stands_first_and_then_the_newest():
    past = Past()
    for at, numbers in enumerate([[1, 2], [1, 2, 3], [1, 2, 3, 4]]):
        past = merged(past, [uses(numbers, at=at)], float(at), DAY)
    assert tables(past) == [table([1, 2, 3, 4]), table([1, 2, 3]), table([1, 2])]
    assert [record.in_use for record in past.records[WEB]] == [True, False, False]


def test_a_table_that_comes_back_stands_there_once():
    past = Past()
    for at, down in enumerate([(), (1,), (), (2,), ()]):
        past = merged(past, [uses([1, 2, 3], down, at)], float(at), DAY)
    assert tables(past) == [table([1, 2, 3]), table([1, 2, 3], [2]), table([1, 2, 3], [1])]


def test_l4_nodes_that_differ_use_both():
    past = merged(Past(), [uses([1, 2], at=5.0), uses([1, 2, 3], at=9.0)], 10.0, DAY)
    assert tables(past) == [table([1, 2, 3]), table([1, 2])]
    assert all(record.in_use for record in past.records[WEB])


def test_what_an_l4_node_remembers_is_learned():
    """By a real server that has just been installed."""
    there = merged(merged(Past(), [uses([1, 2], at=1.0)], 1.0, DAY), [uses([1, 2, 3], at=7.0)], 7.0, DAY)
    assert tables(merged(Past(), [there], 8.0, DAY)) == [table([1, 2, 3]), table([1, 2])]


def test_nothing_changes_while_nothing_changes():
    past = merged(Past(), [uses([1, 2], at=1.0)], 1.0, DAY)
    assert merged(past, [uses([1, 2], at=100.0)], 100.0, DAY) == past


def test_nobody_who_answers_changes_nothing():
    past = merged(Past(), [uses([1, 2], at=1.0, failed=["192.0.2.2"])], 1.0, DAY)
    assert merged(past, [], 10 * DAY, DAY) is past


def test_what_was_long_ago_is_forgotten_and_what_is_in_use_never():
    past = merged(merged(Past(), [uses([1])], 0.0, DAY), [uses([1, 2])], 100.0, DAY)
    assert len(tables(merged(past, [uses([1, 2])], 100.0 + DAY - 1, DAY))) == 2
    assert tables(merged(past, [uses([1, 2])], 100.0 + DAY, DAY)) == [table([1, 2])]


def test_a_service_that_has_gone_is_remembered_for_as_long():
    past = merged(Past(), [uses([1])], 0.0, DAY)
    later = merged(past, [Past()], 10.0, DAY)
    assert [record.in_use for record in later.records[WEB]] == [False]
    assert merged(later, [Past()], 10.0 + DAY, DAY).records == {}


def test_a_server_has_failed_when_every_l4_node_says_so():
    both = [uses([1, 2], failed=["192.0.2.1", "192.0.2.2"]), uses([1, 2], failed=["192.0.2.1"])]
    assert merged(Past(), both, 0.0, DAY).failed == {"192.0.2.1"}


def test_a_rolling_restart_of_200_does_not_run_out():
    numbers, past = list(range(1, 201)), Past()
    for at, number in enumerate(numbers):
        past = merged(past, [uses(numbers, [number])], float(at), DAY)
        past = merged(past, [uses(numbers)], at + 0.5, DAY)
    assert len(past.generations(WEB)) == 201
    assert len({generation.structure for generation in past.generations(WEB)}) == 1


HISTORY = st.lists(
    st.tuples(st.lists(st.integers(1, 6), min_size=1, unique=True), st.sets(st.integers(1, 6)), st.floats(0, 1e9)),
    max_size=6,
)


@given(HISTORY)
def test_a_past_survives_json(history):
    past = Past()
    for numbers, down, at in history:
        past = merged(past, [uses(numbers, down, at, failed=[f"192.0.2.{n}" for n in down])], at, 1e12)
    assert from_json(json.loads(json.dumps(as_json(past)))) == past


def test_a_file_survives_and_is_the_same_value_until_it_changes(tmp_path):
    path = tmp_path / "generated" / "generations.json"
    past = merged(Past(), [uses([1, 2])], 1.0, DAY)
    assert memory.read(path) == Past()
    memory.write(path, past)
    assert memory.read(path) == past
    assert memory.read(path) is memory.read(path)
    other = merged(past, [uses([1, 2, 3])], 2.0, DAY)
    memory.write(path, other)
    assert memory.read(path) == other
    assert memory.mark(other) != memory.mark(past) == memory.mark(from_json(as_json(past)))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"structures": {}, "services": {"a": [["x", [], 0, true]]}, "failed": []}']
)
def test_a_damaged_file_counts_as_none(tmp_path, text, caplog):
    path = tmp_path / "generations.json"
    path.write_text(text)
    assert memory.read(path) == Past()
    assert "begun anew" in caplog.text


def test_the_limit_keeps_what_is_newest(monkeypatch):
    monkeypatch.setattr(generations, "LIMIT", 2)
    past = Past()
    for at in range(4):
        past = merged(past, [uses(range(1, at + 2))], float(at), DAY)
    assert tables(past) == [table([1, 2, 3, 4]), table([1, 2, 3])]


def test_records_name_their_generation():
    record = Record(Generation(table([1])), 1.0, True)
    assert record.generation.table == table([1])
    assert maglev.fingerprint(record.generation.structure) == maglev.fingerprint(table([1]))
