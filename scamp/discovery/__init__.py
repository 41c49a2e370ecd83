"""Which services there are: announcements, the index of them, and where they come from: the
discovery cache file, or the network itself."""

from scamp.discovery.announcement import parse_announcement
from scamp.discovery.authorized import AuthorizedServices
from scamp.discovery.build import AnnouncementSpec, build_announcement, new_identity
from scamp.discovery.cachefile import split_records, write_cache
from scamp.discovery.follower import CacheFollower
from scamp.discovery.model import Action, Announcement, Offer
from scamp.discovery.multicast import (
    MulticastGroup,
    MulticastSender,
    decode_packet,
    encode_packet,
    open_receiver,
)
from scamp.discovery.observer import Observer
from scamp.discovery.registry import Change, Registry
from scamp.discovery.source import DiscoverySource
from scamp.discovery.status import DiscoveryStatus, LoadReport

__all__ = [
    "Action",
    "Announcement",
    "AnnouncementSpec",
    "AuthorizedServices",
    "CacheFollower",
    "Change",
    "DiscoverySource",
    "DiscoveryStatus",
    "LoadReport",
    "MulticastGroup",
    "MulticastSender",
    "Observer",
    "Offer",
    "Registry",
    "build_announcement",
    "decode_packet",
    "encode_packet",
    "new_identity",
    "open_receiver",
    "parse_announcement",
    "split_records",
    "write_cache",
]
