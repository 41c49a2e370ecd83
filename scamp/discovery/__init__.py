"""Which services there are: announcements, the index of them, and the cache file they come from."""

from scamp.discovery.announcement import parse_announcement
from scamp.discovery.authorized import AuthorizedServices
from scamp.discovery.build import AnnouncementSpec, build_announcement, new_identity
from scamp.discovery.cachefile import split_records, write_cache
from scamp.discovery.follower import CacheFollower
from scamp.discovery.model import Action, Announcement, Offer
from scamp.discovery.registry import Change, Registry
from scamp.discovery.status import DiscoveryStatus, LoadReport

__all__ = [
    "Action",
    "Announcement",
    "AnnouncementSpec",
    "AuthorizedServices",
    "CacheFollower",
    "Change",
    "DiscoveryStatus",
    "LoadReport",
    "Offer",
    "Registry",
    "build_announcement",
    "new_identity",
    "parse_announcement",
    "split_records",
    "write_cache",
]
