"""The client side: from an action to a reply, over pooled connections."""

from scamp.client.authz import authz_fetcher
from scamp.client.call import Call, Reply
from scamp.client.deadline import Deadline
from scamp.client.feed import SubscriptionStats
from scamp.client.launch import Launch
from scamp.client.options import ClientOptions
from scamp.client.picture import Changed
from scamp.client.requester import Requester, parse_action
from scamp.client.router import InstanceView
from scamp.client.stats import ClientStats
from scamp.client.subscription import Subscription
from scamp.client.trace import CallTrace
from scamp.client.traits import PeerKind

__all__ = [
    "Call",
    "CallTrace",
    "Changed",
    "ClientOptions",
    "ClientStats",
    "Deadline",
    "InstanceView",
    "Launch",
    "PeerKind",
    "Reply",
    "Requester",
    "Subscription",
    "SubscriptionStats",
    "authz_fetcher",
    "parse_action",
]
