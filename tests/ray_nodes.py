"""Two nodes of a Ray cluster on this machine, each with one core for a worker; a program of its own, for tests.

``python ray_nodes.py`` prints the cluster's address and the pids of the raylets, and holds the cluster until its input
ends; it is told by its environment what every node is told. A node is a raylet and what that starts, as on a machine of
its own: whoever kills all of them has killed the node.
"""

from __future__ import annotations

import json
import sys

NODE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80_000_000, "include_dashboard": False}


def main() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    nodes = [cluster.head_node, cluster.add_node(**NODE)]
    pids = [node.all_processes["raylet"][0].process.pid for node in nodes]
    print(json.dumps({"address": cluster.address, "raylets": pids}), flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
