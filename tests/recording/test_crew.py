"""Who of a cluster's workers does what, and what happens when they die; the cluster is made up."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from conceptatlas.base.errors import WorkError
from conceptatlas.recording.engines.ray import Crew


class TaskError(Exception):
    def __init__(self, cause):
        super().__init__(cause)
        self.cause = cause


class Died(Exception):
    pass


class MadeUpCluster:
    """Each call of a worker ends as ``fate(worker, shard)`` says (an error, or None); the oldest call ends first."""

    exceptions = SimpleNamespace(RayTaskError=TaskError, RayError=Died)

    def __init__(self, fate, never=()):
        self.fate = fate
        self.never = never
        self.started = 0
        self.killed = []
        self.calls = []

    def start(self):
        number = self.started
        self.started += 1

        def remote(shard=None):
            self.calls.append((number, shard))
            return number, shard, len(self.calls)

        method = SimpleNamespace(remote=remote)
        return SimpleNamespace(load=method, run=method, number=number)

    def wait(self, awaited, num_returns):
        return [reference for reference in awaited if reference[0] not in self.never][:num_returns], []

    def get(self, awaited):
        error = self.fate(*awaited[:2])
        if error is not None:
            raise error

    def kill(self, worker):
        self.killed.append(worker.number)


def test_every_shard_once_and_workers_that_never_come_are_not_waited_for():
    cluster = MadeUpCluster(lambda worker, shard: None, never=(2, 3))
    crew = Crew(cluster, cluster.start, 4)
    assert sorted(crew.work_through(range(7))) == list(range(7))
    assert {worker for worker, shard in cluster.calls if shard is not None} == {0, 1}
    crew.dismiss()
    assert sorted(cluster.killed) == [0, 1, 2, 3]


def test_a_worker_has_its_next_shard_before_the_last_is_folded():
    cluster = MadeUpCluster(lambda worker, shard: None)
    done = Crew(cluster, cluster.start, 1).work_through([5, 6])
    assert next(done) == 5
    assert cluster.calls[-1] == (0, 6)


def test_the_shard_of_a_worker_that_dies_goes_to_another():
    cluster = MadeUpCluster(lambda worker, shard: Died() if (worker, shard) == (0, 0) else None)
    assert sorted(Crew(cluster, cluster.start, 2).work_through(range(3))) == [0, 1, 2]
    assert cluster.killed == [0]
    assert cluster.started == 3
    assert sum(shard == 0 for _, shard in cluster.calls) == 2


@pytest.mark.parametrize(("deadly", "what"), [(1, "Shard 1"), (None, "Loading the model")])
def test_deaths_again_and_again_are_an_error(deadly, what):
    cluster = MadeUpCluster(lambda worker, shard: Died() if shard == deadly else None)
    with pytest.raises(WorkError, match=rf"{what} failed 6 times \(Died\); look into the workers' memory"):
        list(Crew(cluster, cluster.start, 1).work_through([0, 1]))
    assert cluster.started == 6


def test_deaths_while_loading_count_only_in_a_row():
    """Every second worker dies on loading, every other one on a shard of its own."""
    cluster = MadeUpCluster(lambda worker, shard: Died() if worker % 2 or shard == worker // 2 else None)
    assert list(Crew(cluster, cluster.start, 1).work_through(range(10))) == list(range(10))
    assert cluster.started > 12


@pytest.mark.parametrize("cause", [WorkError("the disk is full"), ZeroDivisionError("a bug")])
def test_what_a_shard_raises_comes_back(cause):
    cluster = MadeUpCluster(lambda worker, shard: None if shard is None else TaskError(cause))
    with pytest.raises(WorkError if isinstance(cause, WorkError) else TaskError, match=str(cause)):
        list(Crew(cluster, cluster.start, 1).work_through([0]))
