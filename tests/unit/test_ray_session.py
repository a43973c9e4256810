"""A cluster that is not there is said so at once."""

from __future__ import annotations

import pytest

from rlstack.config.schema import Cluster
from rlstack.errors import ConfigError
from rlstack.orchestration.ray_session import start_ray


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nonsense", "127.0.0.1:x"])
def test_an_address_where_no_cluster_is_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=f"cluster.address = {address}: the address of a"):
        start_ray(Cluster(address=address))
