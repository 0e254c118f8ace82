"""A small Ray cluster on this machine, one node per core that it pretends to have; for tests."""

from __future__ import annotations

import os
import sys
from typing import Any

# A node gives up where its helpers do not answer within 15 seconds, as on a machine that other
# tests keep busy; whoever waits for it need not wait much longer.
os.environ |= {"RAY_raylet_start_wait_time_s": "40", "RAY_USAGE_STATS_ENABLED": "0"}
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
TRIES = 5


def start_cluster(n_nodes: int, n_gpus: int = 0) -> tuple[Any, list[Any]]:
    """A `ray.cluster_utils.Cluster`, and its nodes without the head.

    Args:
        n_gpus: that Ray is told each node but the head has.
    """
    from ray.cluster_utils import Cluster

    for _ in range(TRIES):
        cluster = Cluster()
        try:
            nodes = [cluster.add_node(**NODE, num_gpus=n_gpus * (i > 0)) for i in range(n_nodes)]
        except Exception as error:
            print(f"once more: {error}", file=sys.stderr)
            cluster.shutdown()
        else:
            return cluster, nodes[1:]
    sys.exit("Ray does not start")
