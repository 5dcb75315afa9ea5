"""A Ray cluster of two nodes on this machine: the numbers are those of one process, whatever is lost on the way."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from fluidgate import find_policy
from fluidgate.errors import FluidgateError
from fluidgate.execution import executor_named, ray_cluster
from fluidgate.execution.ray_cluster import RayCluster
from fluidgate.policies.own_file import own_policy
from fluidgate.simulation.invariants import InvariantError
from tests.execution.work import answer, calls, held_square, killed, killed_once, refused, square, workers
from tests.plugin_package import install

pytest.importorskip("ray", reason="needs Ray: pip install 'fluidgate[ray]'")

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "two-class.toml"
FLEET = ROOT / "examples" / "chat-fleet.toml"
PATIENCE = 120.0  # s
QUICK_TO_SEE_A_LOSS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 10_000,
    "health_check_failure_threshold": 5,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Its head has one core and listens at `cluster.url`; this process belongs to it."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch, closing(socket.socket()) as free:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, [ROOT, *sys.path])))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        head = {"num_cpus": 1, "ray_client_server_port": port, "_system_config": QUICK_TO_SEE_A_LOSS}
        made = Cluster(initialize_head=True, head_node_args={**head, "include_dashboard": False})
        made.url = f"ray://127.0.0.1:{port}"
        until(lambda: answers(port), "the head does not listen")
        ray.init(made.address, log_to_driver=False, logging_level="ERROR")
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def two_nodes(cluster: Any) -> Iterator[Any]:
    """The cluster with a second node of one core: `cluster.second`."""
    cluster.second = cluster.add_node(num_cpus=1)
    yield cluster
    if cluster.second in cluster.worker_nodes:
        cluster.remove_node(cluster.second)


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def until(condition: Any, what: str) -> None:
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit, what
        time.sleep(0.05)


def test_a_node_is_killed_in_the_middle(two_nodes: Any, marks: Path) -> None:
    jobs = [(str(marks), number) for number in range(1, 7)]
    executor = RayCluster()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(lambda: list(executor.map(held_square, jobs)))
        until(lambda: len(workers(marks)) == 2 or running.done(), "one of the nodes has no job")
        (raylet,) = two_nodes.second.all_processes["raylet"]
        on_second = workers(marks)[raylet.process.pid]
        two_nodes.remove_node(two_nodes.second, allow_graceful=False)
        with suppress(ProcessLookupError):
            os.kill(on_second, signal.SIGKILL)
        marks.with_name("go").touch()
        assert running.result(PATIENCE) == [1, 4, 9, 16, 25, 36]
    called = calls(marks)
    assert len(called) == 7
    assert set(called) == set(range(1, 7))


def test_workers_are_killed_in_the_middle(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = RayCluster()
    assert list(executor.map(killed_once, [(str(tmp_path), number) for number in range(3)])) == [0, 1, 2]
    assert (tmp_path / "killed").exists()
    monkeypatch.setattr(ray_cluster, "RETRIES", 1)
    with pytest.raises(FluidgateError, match="a job was lost with its worker 2 times"):
        list(executor.map(killed, [1]))


def test_failures_arrive_as_themselves(cluster: Any) -> None:
    executor = RayCluster()
    with pytest.raises(FluidgateError, match=r"^file\.toml: key: is wrong; mend it$") as failure:
        list(executor.map(refused, ["input"]))
    assert type(failure.value) is FluidgateError
    with pytest.raises(InvariantError, match=r"^a request was lost \(event 7\)$"):
        list(executor.map(refused, ["invariant"]))


def test_jobs_that_nobody_waits_for_are_cancelled(cluster: Any, marks: Path) -> None:
    executor = RayCluster()
    with closing(executor.completed(held_square, [(str(marks), number) for number in range(3)])) as ended:
        assert next(ended) == (0, 0)
        until(lambda: len(calls(marks)) == 2, "the second job did not start")
    assert list(executor.map(square, [(str(marks), 4, 0.0)])) == [16]
    assert len(calls(marks)) == 3


def test_other_code_on_a_node_is_told(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "code_version", lambda: "another")
    with pytest.raises(FluidgateError, match=f"{socket.gethostname()} has another fluidgate"):
        list(RayCluster().map(abs, [1]))


def test_a_users_policy_needs_no_file_on_the_nodes(cluster: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from fluidgate import find_policy\nANSWER = 7\n\n"
        "def gate(view, tables):\n    return ANSWER\n\n"
        "mine = find_policy('fi-wsp').with_functions('mine', gate=gate)\n"
    )
    policy = own_policy(f"{file}:mine").for_worker()
    file.unlink()
    assert list(RayCluster().map(answer, [policy])) == [7]


def test_a_packages_policy_needs_no_package_on_the_nodes(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "only_here/__init__.py": "",
        "only_here/numbers.py": "def number():\n    return 7\n",
        "only_here/policy.py": "from fluidgate import find_policy\nfrom only_here.numbers import number\n\n"
        "def gate(view, tables):\n    return number()\n\n"
        "MINE = find_policy('fi-wsp').with_functions('mine', gate=gate)\n",
    }
    install(tmp_path / "packages", "only-here", {"fluidgate.policies": {"mine": "only_here.policy:MINE"}}, files)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    assert list(RayCluster().map(answer, [find_policy("mine").for_worker()])) == [7]


COMPARED = ["compare", str(EXAMPLE), "--policy", "index-and-pool,vllm-round-robin", "--gpus", "4"]
COMPARED += ["--horizon", "60", "--replications", "2", "--fidelity", "iteration", "--json"]
SIZED = ["size", str(FLEET), "--rate-scale", "0.05", "--chunk-size", "512,2048", "--json"]


@pytest.mark.parametrize(("arguments", "results"), [(COMPARED, 4), (SIZED, 8)], ids=["compare", "size"])
def test_two_nodes_give_the_numbers_of_one_process(
    two_nodes: Any, tmp_path: Path, arguments: list[str], results: int
) -> None:
    def run(*options: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "fluidgate", *arguments, *options]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        told = [line for line in ran.stderr.splitlines() if "warning" not in line and "compil" not in line]
        assert (ran.returncode, told) == (0, [])
        found: dict[str, Any] = json.loads(ran.stdout)
        for each in found.get("policies", [found]):
            del each["wall_seconds"]
        return found

    kept = tmp_path / "kept"
    there = run("--executor", two_nodes.url, "--keep", str(kept))
    assert len(list(kept.iterdir())) == results
    assert there == run("--workers", "1")
    two_nodes.remove_node(two_nodes.second)
    assert there == run("--keep", str(kept))
    assert len(list(kept.iterdir())) == results


@pytest.mark.parametrize(("failures", "joins"), [(2, True), (3, False)])
def test_a_busy_head_is_asked_again(monkeypatch: pytest.MonkeyPatch, failures: int, joins: bool) -> None:
    class Ray:
        asked = 0

        def is_initialized(self) -> bool:
            return self.asked > failures

        def init(self, *_: Any, **__: Any) -> None:
            self.asked += 1
            if self.asked <= failures:
                raise ConnectionError("a long story\nit took too long.")

    ray = Ray()
    monkeypatch.setattr(ray_cluster, "import_module", lambda name: ray)
    if joins:
        assert ray_cluster._joined("ray://head:1") is ray
        return
    with pytest.raises(FluidgateError, match=r"can't join the cluster at ray://head:1: it took too long$"):
        ray_cluster._joined("ray://head:1")


def test_no_job_needs_no_cluster() -> None:
    assert list(RayCluster().map(abs, [])) == []


def test_an_address_where_nothing_answers_is_told() -> None:
    with closing(socket.socket()) as taken:  # bound, but it does not listen
        taken.bind(("127.0.0.1", 0))
        url = f"ray://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(FluidgateError, match=f"executor: nothing answers at {url} .*ray start --head"):
            executor_named(url)


def test_without_ray_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    with pytest.raises(FluidgateError, match=r"Ray is not installed; pip install 'fluidgate\[ray\]'"):
        executor_named("ray")
