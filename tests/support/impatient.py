"""`cuntongd` that looks again after a second instead of a minute, so that tests needn't wait."""

from __future__ import annotations

import cuntong_daemon.metadata
import cuntong_daemon.replicator
import cuntong_daemon.swarm.engine
from cuntong_daemon.main import main

RETRY_S = 0.5

cuntong_daemon.metadata.RETRY_S = RETRY_S
cuntong_daemon.replicator.RETRY_S = RETRY_S
cuntong_daemon.swarm.engine.RETRY_FIRST_S = RETRY_S
cuntong_daemon.swarm.engine.RETRY_MAX_S = RETRY_S

if __name__ == "__main__":
    main()
