"""What the tests of the node share."""

from __future__ import annotations

from tests.node.servers import archive as archive
from tests.node.servers import files as files
from tests.node.servers import server as server
