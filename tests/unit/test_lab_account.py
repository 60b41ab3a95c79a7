"""The account of an experiment: who broke, when, and whether it had to be."""

from dataclasses import replace

from lbnode.lab.account import Flow, FlowReport, Outage, Phase, Sample, Story, account

ONE, TWO = Flow("203.0.113.1", 1001, "198.51.100.1"), Flow("2001:db8::1", 1002, "2001:db8:c633:6401::1")
PHASES = (Phase("event", 10.0), Phase("moves", 20.0), Phase("return", 30.0))


def report(flow, broken="", at=0.0, stopped_at=0.0, **rest):
    made = FlowReport(
        "download", flow.source, flow.port, flow.vip, 80, "s1", 100, 1, broken, True, at, stopped_at or at, 0.0, 0.0
    )
    return replace(made, **rest)


def sample(at, **tables):
    """sample(9.0, l4_1={ONE: "l7-1"})"""
    return Sample(at, {name.replace("_", "-"): table for name, table in tables.items()})


def story(*samples, outages=()):
    return Story(samples or (sample(9.0, l4_1={ONE: "l7-1"}, l4_2={TWO: "l7-2"}),), PHASES, outages)


def test_all_is_well():
    told = account([report(ONE), report(TWO)], story())
    assert (told.opened, told.finished, told.broken, told.moved, told.failures) == (2, 2, (), 0, ())


def test_a_flow_whose_server_lived_need_not_have_broken():
    (flow,) = account([report(ONE, "reset", 21.0), report(TWO)], story()).broken
    assert (flow.flow, flow.l7, flow.phase, flow.avoidable) == (ONE, "l7-1", "moves", True)


def test_a_flow_of_a_dead_server_could_not_be_kept():
    told = account([report(ONE, "reset", 21.0), report(TWO)], story(outages=[Outage("l7-1", 10.5)]))
    assert [flow.avoidable for flow in told.broken] == [False]
    assert (told.lost, told.avoidable, told.finished) == (1, (), 1)


def test_what_broke_before_its_server_died_is_another_matter():
    told = account([report(ONE, "reset", 10.2)], story(outages=[Outage("l7-1", 10.5)]))
    assert len(told.avoidable) == 1


def test_a_server_that_came_back_does_not_have_its_flows_any_more():
    told = account([report(ONE, "reset", 35.0)], story(outages=[Outage("l7-1", 10.5)]))
    assert told.avoidable == ()


def test_a_flow_that_nobody_has_seen_counts_as_avoidable():
    stranger = Flow("203.0.113.9", 1, "198.51.100.1")
    (flow,) = account([report(stranger, "reset", 21.0)], story(outages=[Outage("l7-1", 10.5)])).broken
    assert (flow.l7, flow.avoidable) == ("?", True)


def test_who_gave_up_after_a_long_wait_broke_when_the_wait_began():
    (flow,) = account([report(ONE, "nothing for 25 s", 40.0, stopped_at=15.0)], story()).broken
    assert (flow.phase, flow.at, flow.stopped_at) == ("event", 40.0, 15.0)


def test_breaks_before_the_first_phase_belong_to_it():
    (flow,) = account([report(ONE, "reset", 5.0)], story()).broken
    assert flow.phase == "event"


def test_a_flow_has_moved_when_another_l4_node_knows_it_too():
    later = sample(25.0, l4_1={ONE: "l7-1"}, l4_2={TWO: "l7-2"}, l4_3={ONE: "l7-1"})
    told = account([report(ONE), report(TWO)], story(*story().samples, later))
    assert told.moved == 1


def test_the_holder_is_the_first_one_and_a_later_disagreement_is_told():
    later = sample(25.0, l4_3={ONE: "l7-3"})
    told = account([report(ONE, "receive: Connection reset by peer", 24.0)], story(*story().samples, later))
    (flow,) = told.broken
    assert flow.l7 == "l7-1"
    assert str(flow) == (
        "tcp 203.0.113.1:1001 -> 198.51.100.1:80 (download), held by l7-1, moves: receive: Connection reset by peer;"
        " avoidable; l4-3 sends it to l7-3"
    )


def test_ipv6_ends_are_written_in_brackets():
    (flow,) = account([report(TWO, "reset", 24.0)], story()).broken
    assert str(flow).startswith("tcp [2001:db8::1]:1002 -> [2001:db8:c633:6401::1]:80 (")


def test_stalls_count_where_the_server_lived():
    reports = [report(ONE, stall_s=7.0, stall_at=11.0), report(TWO, stall_s=1.5, stall_at=11.0)]
    told = account(reports, story(outages=[Outage("l7-1", 10.5)]))
    assert (told.stalled, told.longest_stall_s) == (1, 1.5)
    told = account(reports, story())
    assert (told.stalled, told.longest_stall_s) == (2, 7.0)


def test_short_requests_are_counted_apart():
    short = report(ONE, kind="short", port=0, rounds=7, failures=((12.0, 5001, "refused"), (22.0, 5002, "reset")))
    told = account([short, report(TWO)], story())
    assert (told.opened, told.requests) == (1, 9)
    assert [(failure.flow.port, failure.phase, failure.why) for failure in told.failures] == [
        (5001, "event", "refused"),
        (5002, "moves", "reset"),
    ]


def test_avoidable_breaks_by_phase():
    told = account([report(ONE, "reset", 11.0), report(TWO, "reset", 31.0)], story())
    assert told.by_phase(("event", "moves", "return")) == {"event": 1, "moves": 0, "return": 1}


def test_as_json_names_every_end_of_a_broken_flow():
    told = account([report(ONE, "reset", 21.0), report(TWO)], story()).as_json()
    (flow,) = told["broken_flows"]
    assert (flow["source"], flow["port"], flow["vip"], flow["vip_port"], flow["protocol"]) == (
        ONE.source,
        ONE.port,
        ONE.vip,
        80,
        "tcp",
    )
    assert (told["opened"], told["broken"], told["avoidable"], told["reasons"]) == (2, 1, 1, {"reset": 1})


UDP = Flow("203.0.113.3", 1003, "198.51.100.5", "udp")


def datagrams(**rest):
    return report(UDP, kind="datagrams", backend="s1", **rest)


def held_by_s1(*more, **rest):
    return story(sample(9.0, l4_1={UDP: "s1"}), *more, **rest)


def test_datagrams_are_counted_with_and_without_an_answer():
    told = account([datagrams(rounds=7, lost=2), report(ONE, rounds=5)], held_by_s1())
    assert (told.opened, told.datagrams, told.datagrams_lost, told.elsewhere, told.broken) == (2, 9, 2, 0, ())


def test_a_flow_by_udp_that_another_server_answers_is_broken_and_need_not_have_been():
    later = sample(25.0, l4_1={UDP: "s1"}, l4_2={UDP: "s2"})
    told = account([datagrams(broken="answered by s2, instead of s1", at=21.0, other="s2")], held_by_s1(later))
    assert (told.elsewhere, told.moved, len(told.avoidable)) == (1, 1, 1)
    (flow,) = told.broken
    assert str(flow) == (
        "udp 203.0.113.3:1003 -> 198.51.100.5:80 (datagrams), held by s1, moves: answered by s2, instead of s1;"
        " avoidable; l4-2 sends it to s2"
    )
    assert told.as_json()["broken_flows"][0]["protocol"] == "udp"
    assert told.as_json()["answered_elsewhere"] == 1


def test_a_flow_by_udp_of_a_dead_server_could_not_be_kept():
    told = account([datagrams(broken="nothing", at=25.0)], held_by_s1(outages=[Outage("s1", 10.5)]))
    assert (told.avoidable, told.lost) == ((), 1)


def test_a_server_that_is_lost_for_one_protocol_keeps_the_flows_of_the_other():
    flows = [datagrams(broken="started anew", at=25.0, other="s1"), report(ONE, "reset", 25.0)]
    both = sample(9.0, l4_1={UDP: "s1", ONE: "s1"})
    told = account(flows, story(both, outages=[Outage("s1", 10.5, "udp")]))
    assert [(flow.flow, flow.avoidable) for flow in told.broken] == [(UDP, False), (ONE, True)]


def test_ports_of_two_protocols_are_two_flows():
    twin = Flow(*list(vars(UDP).values())[:3])
    both = story(sample(9.0, l4_1={UDP: "s1", twin: "s2"}))
    assert (both.holder(UDP), both.holder(twin)) == ("s1", "s2")
