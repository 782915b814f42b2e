"""What is listed for this node, with search; the node's database."""

from .catalogue import BundleState, Catalogue, Changes, Entry, Event, Summary
from .database import CatalogueError, Database, check_database, open_database

__all__ = [
    "BundleState",
    "Catalogue",
    "CatalogueError",
    "Changes",
    "Database",
    "Entry",
    "Event",
    "Summary",
    "check_database",
    "open_database",
]
