"""A cluster that is only pretended, with one resource."""

import pytest

from tests.unit.operator_runtime.fakes import FakeCluster, make_resource


@pytest.fixture
def cluster() -> FakeCluster:
    cluster = FakeCluster()
    cluster.add(make_resource())
    return cluster
