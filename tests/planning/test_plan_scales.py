"""Plans whose numbers lie far apart: rates that hardly load a GPU, and loads that dwarf it."""

import numpy as np
import pytest

from fluidgate import FluidgateError, Gpu, IterationTime, Planner, Pricing, RequestClass, Scenario, plan


def scenario(classes, *, gpu=None, pricing=None):
    gpu = gpu or Gpu(batch_size=16, chunk_size=256, iteration=IterationTime(alpha=0.0174, beta=6.2e-5, gamma=45.45))
    pricing = pricing or Pricing(scheme="bundled", prompt=0.1, output=0.2)
    return Scenario(name="scales", gpu=gpu, pricing=pricing, classes=classes)


def request_class(name, rate, prompt=300.0, output=1000.0, patience=0.1):
    return RequestClass(
        name=name, prompt_tokens=prompt, output_tokens=output, arrival_rate=rate, patience_rate=patience
    )


@pytest.mark.parametrize("seed", range(40))
def test_a_load_that_a_gpu_hardly_feels_is_served_in_full(seed):
    random = np.random.default_rng(seed)
    classes = tuple(
        request_class(f"c{k}", 10.0 ** random.uniform(-18, -7), *(10.0 ** random.uniform(-1, 3, 2)), 0.5)
        for k in range(3)
    )
    tau = 10.0 ** random.uniform(-9, -1)
    chunk = int(random.integers(1, 2000))
    iteration = IterationTime(alpha=tau / 2, beta=tau / 2 / chunk, gamma=10.0 ** random.uniform(-2, 3))
    given = scenario(classes, gpu=Gpu(batch_size=16, chunk_size=chunk, iteration=iteration))
    for scheme in ("bundled", "separate"):
        found = plan(given, scheme=scheme)
        assert found.served_fraction == pytest.approx([1.0] * 3, rel=1e-6)
        assert found.revenue_rate == pytest.approx(given.rates.arrival @ given.rates.bundled_value, rel=1e-6)


def test_nobody_is_served_who_did_not_arrive():
    tiny = Gpu(
        batch_size=16,
        chunk_size=1,
        iteration=IterationTime(alpha=-3.947373900805465e-09, beta=7.89474780161093e-09, gamma=0.07099254374126406),
    )
    classes = (
        request_class("c0", 5.5937993778899254e-08, 0.12766984327242725, 7.005335406700325, 4.98469676259075e-05),
        request_class("c1", 4.7093885498304953e-07, 238.97528234429876, 101.06567152212682, 0.957853328694515),
    )
    found = plan(scenario(classes, gpu=tiny, pricing=Pricing(scheme="bundled", prompt=1000.0, output=0.1)))
    assert found.revenue_rate == pytest.approx(0.112555, rel=1e-5)
    assert found.served_fraction == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("load", [1e3, 1e6, 1e9, 1e12])
def test_what_a_gpu_earns_does_not_depend_on_how_far_it_is_overloaded(load):
    enough = plan(scenario((request_class("one", 100.0),))).revenue_rate
    assert plan(scenario((request_class("one", 100.0 * load),))).revenue_rate == pytest.approx(enough, rel=1e-6)


def test_a_planner_counts_in_slots_again_after_an_odd_scenario():
    planner, plain = Planner(), scenario((request_class("one", 0.5), request_class("two", 0.5, 3000.0, 400.0)))
    before = planner.solve(plain).revenue_rate
    planner.solve(scenario((request_class("one", 1e-15), request_class("two", 1e-9, 3000.0, 400.0))))
    assert planner.solve(plain).revenue_rate == before


@pytest.mark.parametrize("scheme", ["seperate", "Bundled", ""])
def test_a_scheme_that_there_is_not_is_refused(scheme):
    with pytest.raises(FluidgateError, match="scheme: must be 'bundled' or 'separate', but is"):
        plan(scenario((request_class("one", 0.5),)), scheme=scheme)


@pytest.mark.parametrize("scheme", ["bundled", "separate"])
@pytest.mark.parametrize("classes", [2, 5, 9])
def test_equal_classes_are_served_alike(scheme, classes):
    found = plan(scenario(tuple(request_class(f"c{k}", 0.5) for k in range(classes))), scheme=scheme)
    one = plan(scenario((request_class("all", 0.5 * classes),)), scheme=scheme)
    assert found.revenue_rate == pytest.approx(one.revenue_rate, rel=1e-9)
    for values in (found.served_fraction, found.prefill, found.mixed_decode, found.solo_decode, found.decode_queue):
        assert np.ptp(values) <= 1e-6 * max(values.max(), 1e-9)


def test_equal_classes_of_different_rates_are_served_in_proportion():
    rates = (0.2, 0.5, 1.3)
    found = plan(scenario(tuple(request_class(f"c{k}", rate) for k, rate in enumerate(rates))))
    assert found.served_fraction == pytest.approx([found.served_fraction[0]] * 3)
    assert 0.1 < found.served_fraction[0] < 1.0
