"""Ray, where trials run: started on this machine, or a cluster that is there.

ray is imported here alone, when a sweep runs.
"""

import contextlib
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.sweeps.run_trial import Order, Report, run_trial

MISSING = 'sweep needs ray, which is not installed: pip install "mbrl-bilevel[sweep]"'
REACH_SECONDS, JOIN_SECONDS = 5.0, 20.0
STARTS = 2  # more of Ray on this machine, before it is given up
STOP_SECONDS = 30.0  # in which trials that are cancelled write their checkpoints
SMALL_STORE = 100 * 2**20  # bytes of Ray's store of objects; a trial's order and report are small
# Before ray is imported: no usage statistics, no upload of the directory under `uv run`.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "error",
}


def require_ray() -> None:
    """InputError where ray is not installed."""
    if find_spec("ray") is None:
        raise InputError(MISSING)


@dataclass
class Cluster:
    """Trials on a connected Ray, each with its share of CPUs and GPUs."""

    cpus: int
    gpus: float
    _running: dict[Any, str] = field(default_factory=dict)

    def capacity(self) -> int:
        """Trials that the nodes that are alive hold at a time."""
        return sum(self._slots(node["Resources"]) for node in _nodes())

    def _slots(self, resources: Mapping[str, float]) -> int:
        slots = int(resources.get("CPU", 0) // self.cpus)
        if self.gpus:
            slots = min(slots, int(resources.get("GPU", 0) / self.gpus + 1e-6))
        return slots

    def require_room(self) -> None:
        """InputError where no node holds a trial."""
        if self.capacity():
            return
        nodes = [node["Resources"] for node in _nodes()]
        cpus, gpus = (max((n.get(k, 0) for n in nodes), default=0) for k in ("CPU", "GPU"))
        wanted = f"--cpus-per-trial {self.cpus}" + (
            f" --gpus-per-trial {self.gpus:g}" if self.gpus else ""
        )
        raise InputError(
            f"{wanted}: no node of the cluster has as many (the most are {cpus:g} CPUs and "
            f"{gpus:g} GPUs): choose fewer"
        )

    def start(self, order: Order) -> None:
        """Submits a trial; one whose node or process is lost is run again, by whichever node."""
        import ray

        remote = ray.remote(run_trial).options(
            name=order.name,
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_retries=-1,
            retry_exceptions=False,
            scheduling_strategy="SPREAD",
        )
        self._running[remote.remote(order)] = order.name

    def ended(self, seconds: float) -> list[Report]:
        """Trials that have ended, waiting up to so many seconds for the first."""
        import ray

        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return [self._report(reference) for reference in ready]

    def _report(self, reference: Any) -> Report:
        import ray

        name = self._running.pop(reference)
        try:
            report: Report = ray.get(reference)
        except ray.exceptions.TaskCancelledError:
            return Report(name, "stopped")
        except ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()
            return Report(name, "failed", f"Ray: {said[-1] if said else type(error).__name__}")
        return report

    def stop(self) -> None:
        """Cancels what runs, and waits until it has written its checkpoints."""
        import ray

        for reference in self._running:
            ray.cancel(reference)
        if self._running:
            ray.wait(list(self._running), num_returns=len(self._running), timeout=STOP_SECONDS)


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


@contextmanager
def connected(address: str | None, cpus: int, gpus: float) -> Iterator[Cluster]:
    """A cluster at an address, or one that is started here (None) and ends with the context.

    Raises:
        InputError: none answers within seconds, or none of its nodes holds a trial.
    """
    if address not in (None, "auto"):
        _require_answer(str(address))
    os.environ.update(SETTINGS)
    with contextlib.ExitStack() as ending:
        _join(address, ending)
        cluster = Cluster(cpus, gpus)
        cluster.require_room()
        yield cluster


def _require_answer(address: str) -> None:
    """Fails within seconds where Ray would try for a minute."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or "/" in address or not port.isdigit():
        raise InputError(
            f"--address {address}: give HOST:PORT of the cluster's head, as `ray start --head` "
            "prints it, or auto"
        )
    try:
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(_unreachable(address, getattr(error, "strerror", None) or error)) from None


def _unreachable(address: str, reason: object) -> str:
    return (
        f"--address {address}: no Ray cluster answers there ({reason}): start one by `ray start "
        "--head`, or leave --address out to compute on this machine"
    )


def _join(address: str | None, ending: contextlib.ExitStack) -> None:
    """ray.init, without the lines that Ray writes; `ending` takes what ends it.

    In a thread where there is an address, as Ray takes a minute to notice that what answers there
    is no cluster.
    """
    ending.callback(_leave)
    with _silenced():
        if address is None:
            _start_here(ending)
            return
        failure: list[BaseException] = []
        thread = threading.Thread(target=_init, args=(address, failure), daemon=True)
        thread.start()
        thread.join(JOIN_SECONDS)
    if thread.is_alive():
        raise InputError(_unreachable(address, f"not within {JOIN_SECONDS:.0f} s"))
    if failure:
        raise InputError(_unreachable(address, " ".join(str(failure[0]).split())[:120]))


def _leave() -> None:
    import ray

    with contextlib.suppress(Exception):  # whatever a lost cluster says of its end
        ray.shutdown()


def _start_here(ending: contextlib.ExitStack) -> None:
    """Ray on this machine; a busy one may not start all its processes in the time they have."""
    failure: list[BaseException] = []
    _init("local", failure, include_dashboard=False, object_store_memory=SMALL_STORE)
    for _ in range(STARTS):
        if not failure:
            return
        if not isinstance(failure[0], Exception):
            raise failure[0]
        failure = _start_with_ports(ending)
    if failure:
        raise SystemExit(f"mbrl-bilevel sweep: Ray cannot be started here: {failure[0]}")


def _start_with_ports(ending: contextlib.ExitStack) -> list[BaseException]:
    """Starts Ray with ports that are given, so that its processes wait less for each other.

    `ray.init` takes none of these ports, Ray's cluster for tests does. It is the second choice, as
    `--address auto` of another program would find it. Returns what it raised.
    """
    failure: list[BaseException] = []
    try:
        import torch
        from ray.cluster_utils import Cluster as Nodes

        head = {
            "num_cpus": os.cpu_count() or 1,
            "num_gpus": torch.cuda.device_count(),
            "include_dashboard": False,
            "object_store_memory": SMALL_STORE,
        }
        nodes = Nodes(initialize_head=True, shutdown_at_exit=True, head_node_args=head | ports())
        ending.pop_all().close()  # what earlier tries left
        ending.callback(nodes.shutdown)
        ending.callback(_leave)  # first
        _init(nodes.address, failure)
    except Exception as error:
        failure.append(error)
    return failure


def ports() -> dict[str, int]:
    """Free ports for the processes of a node that would else tell theirs by files."""
    names = ("metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in names]
        for one in sockets:
            one.bind(("", 0))
        return {name: one.getsockname()[1] for name, one in zip(names, sockets, strict=True)}


def _init(address: str, failure: list[BaseException], **options: Any) -> None:
    """ray.init; what it raises goes into `failure`, as a thread has no other place for it."""
    try:
        import ray

        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except BaseException as error:
        failure.append(error)


@contextmanager
def _silenced() -> Iterator[None]:
    """Nothing of this process, libraries in C++ among it, reaches stderr meanwhile."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
