"""Every cap in the library, with its reason. Sizes in bytes, times in seconds.

Nothing that a peer, a file or a caller can make grow is without one.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# -- packets ----------------------------------------------------------------------------

MAX_PACKET_BODY: Final = 131_072
"""Largest body we send in one packet, and largest that we accept in any packet but DATA.
JavaScript, Rust and C# close the connection above it."""

MAX_DATA_SENT: Final = 65_536
"""Largest body of a DATA packet that we send, whatever the window is. Rust keeps a packet and up
to 4 KiB of what follows it in one buffer, and closes the connection when that has more than
131,172 bytes."""

MAX_HEADER_LINE: Final = 80
"""Longest packet header line accepted, CR LF included (Perl and Rust: 80, JavaScript: 40)."""

MAX_INFLIGHT: Final = 65_536
"""Unacknowledged DATA bytes per message at which a sender pauses (``flow.max_inflight``)."""

MAX_DATA_SIZE: Final = 1 << 62
"""Go sends a whole reply as one DATA packet; beyond this the number is nonsense."""

MAX_OPEN_MESSAGES: Final = 4_096
"""Incoming messages that one connection may have open at once."""

MAX_OPEN_HEADERS: Final = 4 * MIB
"""Bytes of HEADERs of messages that one connection has open. One has some hundred bytes; as objects
they take up to twenty times what they took on the wire."""

MAX_EXTRA_HEADER: Final = 16 * KIB
"""Unknown fields of a HEADER larger than this are dropped: for as long as its request runs."""

MAX_REQUEST_ID_TEXT: Final = 255
"""Characters in a request_id that is a string; it is sent back and stands in logs."""

# -- connections ------------------------------------------------------------------------

READ_PAUSE: Final = 256 * KIB
"""Unread bytes of one message at which we stop reading the socket. A peer that keeps to the
window never gets here; one that ignores ACKs (Go) is held by TCP instead."""

READ_SIZE: Final = 288 * KIB
"""Bytes that are read from a connection at once, where there is no more: what asyncio and uvloop
read of the socket, and the beginning of a record from before."""

MAX_RECORD: Final = 16 * KIB
"""Bytes in one record of TLS."""

MAX_PIECES: Final = 256
"""Unread pieces of one message at which they are made one: a piece of a byte or two takes twenty
times its size."""

MAX_PACKETS_AT_ONCE: Final = 512
"""Packets of one connection that are looked at in one turn of the event loop. A read may bring
13,000 that have a byte each: 40 ms in which nobody else would be served."""

WRITE_HIGH: Final = 256 * KIB
"""Bytes waiting in the transport at which writers of bodies wait."""

WRITE_SIZE: Final = 128 * KIB
"""Bytes that are given to the transport at once. TLS makes two copies of them, and those of several
hundred KiB are had of the operating system page by page."""

WRITE_FIRST: Final = 4 * KIB
"""Bytes at the beginning of a body that leave with the next write, whatever others have queued
for it."""

WRITE_LIMIT: Final = 16 * MIB
"""Bytes waiting in the transport at which the connection is cut. Bodies stop at WRITE_HIGH; this
is for headers, ACKs and PONGs to a peer that sends and never reads."""

MAX_REQUEST_ID: Final = (1 << 31) - 1
"""Ids stay below 2**31: some peers keep them in 32 bits."""

DISCARD_LIMIT: Final = 256 * KIB
"""How much of an abandoned reply is read and thrown away before its connection is retired."""

MAX_ABANDONED: Final = 256
"""Abandoned requests that one connection remembers before it is retired; half of the requests that
it may carry, if that is less, so that those which are never answered do not hold every place."""

MAX_CONNECTIONS: Final = 64
"""Connections to one instance. A peer that renumbers replies needs one per request in flight."""

MAX_WAITERS: Final = 1_024
"""Requests that may wait for a connection to one instance."""

MAX_PLANNED: Final = 65_536
"""Instances over all lists of them that are kept at hand to choose from, some 100 bytes each."""

CONNECT_TIMEOUT: Final = 10.0
"""TCP and TLS together."""

KEEPALIVE_IDLE: Final = 15.0
"""Silence after which the kernel asks whether the peer is still there."""

KEEPALIVE_INTERVAL: Final = 5.0
"""From one such question to the next."""

USER_TIMEOUT: Final = 30.0
"""How long a peer may leave everything unacknowledged: less than most deadlines, so that a dead one
is found and its reads go elsewhere in time; more than a network takes to find another way."""

SILENT_AFTER: Final = 5
"""Requests in a row that an instance leaves unanswered, without any reply between them, after which
it counts as dead. One slow action has fewer; Envoy takes as many."""

SILENT_WAIT: Final = 10.0
"""Seconds without a reply after which a request counts among them though its caller left, or had
asked for less time than the action takes."""

REPLY_HOLD: Final = 0.05
"""How long the beginning of a reply to a read is kept back, so that one that is cut can be had
again. Most are complete in less; the others are late by no more than is noticed."""

PING_INTERVAL: Final = 15.0
"""Time between PINGs to services that are known to answer them."""

CLIENT_IDLE: Final = 90.0
"""Idle time after which a client closes (``beepish.client_timeout``)."""

SERVER_IDLE: Final = 120.0
"""Idle time after which a service closes (``beepish.server_timeout``)."""

RPC_TIMEOUT: Final = 75.0
"""Default deadline of a request (``rpc.timeout``)."""

BODY_IDLE: Final = 60.0
"""Longest pause between two pieces of a body, in either direction."""

MAX_TRAITS: Final = 10_000
"""Instances of which we remember how they behave."""

MAX_SESSIONS: Final = 1_000
"""Services of which we keep a TLS session, some 6 KiB each with the certificate in it."""

SESSION_AGE: Final = 3_600.0
"""Seconds after a full handshake in which its session is resumed: a peer proves at least so often
that it has the certificate's key."""

# -- discovery --------------------------------------------------------------------------

MAX_ANNOUNCEMENT: Final = 2 * MIB
"""One record. Real ones have 1 to 20 KiB."""

MAX_ANNOUNCED_ACTIONS: Final = 100_000
"""Actions in one announcement, run-length coding expanded."""

MAX_SERVICES: Final = 50_000
"""Records in a cache file; ten times what is planned for."""

MAX_ACTIONS: Final = 1_000_000
"""Actions in the whole index; ten times what is planned for."""

STRANGERS_PART: Final = 0.1
"""Of the room for services, actions and bytes: what those may take whom authorized_services does
not name. Anybody can make a key and announce what he likes."""

MAX_CACHE_FILE: Final = 512 * MIB
"""A discovery cache file larger than this is not read."""

MAX_NAME: Final = 255
"""Characters in a sector, namespace or action name."""

MAX_SERVICE_NAME: Final = 200
"""Characters in the name of a service of ours; its identity, 25 longer, is a name too."""

CACHE_MAX_AGE: Final = 120.0
"""Age of the cache file after which its writer is taken for dead (``discovery.cache_max_age``)."""

MAX_DATAGRAM: Final = 65_507
"""Bytes that fit in one UDP datagram over IPv4."""

MULTICAST_BUFFER: Final = 4 * MIB
"""Bytes of announcements that the kernel is asked to keep while we are busy: a thousand of 3 KiB.
It gives ``net.core.rmem_max`` at most; what is lost is announced again an interval later."""

MAX_PENDING_PACKETS: Final = 4_096
"""Announcements that wait to be verified, of services that are known, and of others: those of a
whole mesh that starts at once. One host may have a quarter of it."""

MAX_PENDING_BYTES: Final = 16 * MIB
"""Bytes of the same."""

MAX_PENDING_OF_ONE: Final = 4
"""Announcements that wait of one service that is known, from one host. It sends one in some
seconds; more are forged."""

KNOWN_PACKETS_PER_SECOND: Final = 4_000
"""Announcements of known services that are verified: four times what 5,000 services send."""

OTHER_PACKETS_PER_SECOND: Final = 1_000
"""Announcements of strangers that are verified; forged ones cost a twentieth of a core."""

KNOWN_CPU_SHARE: Final = 0.8
"""Of one core, for announcements of known services: 5,000 that renew take a twentieth."""

OTHER_CPU_SHARE: Final = 0.2
"""Of one core, for announcements of strangers, whatever they announce; one host may have half."""

SERVICE_CPU_SHARE: Final = 0.1
"""Of one core, for one known service: one of 100,000 actions may change every other second."""

ROUND_CPU: Final = 0.1
"""Seconds of CPU after which a round ends whatever is left of it. Announcements of 100,000 actions
cost as much each."""

MAX_ROUND: Final = 256
"""Announcements that are verified in one go, so that news of others need not wait for long."""

LISTEN_FIRST: Final = 5.5
"""How long we listen before what was heard counts as all there is: the usual interval and some."""

SILENCE: Final = 30.0
"""How long nothing at all may be heard before we leave the group and join it: a switch may have
forgotten us."""

REJOIN: Final = 5.0
"""Time between joinings of the group for the sake of interfaces that went and came back."""

MAX_AUTHORIZED_FILE: Final = 16 * MIB
"""An authorized_services file larger than this is not read."""

MAX_CACHED_LOOKUPS: Final = 16_384
"""Answers of `Registry.find` that are kept until the next change."""

MAX_TIMESTAMPS: Final = 2 * MAX_SERVICES
"""Services, present and past, whose newest timestamp is remembered."""

MAX_CACHED_CERTIFICATES: Final = 4_096
"""Parsed certificates kept by their text; all instances of a service share one."""

MAX_REJECTED_SHOWN: Final = 100
"""Refused records that are described one by one; all of them are counted."""

MAX_PROBLEMS: Final = 100
"""Bad lines that are described; more are skipped all the same."""

MAX_WATCHED_OUTPUT: Final = 64 * MIB
"""Bytes that ``scamp watch`` holds for whoever reads it: several times what 5,000 services with
100,000 actions take as JSON, when they come all at once."""

MAX_REFUSALS_TOLD: Final = 1_000
"""Refused services, each with the reason, of which ``scamp watch`` remembers that it told of them
lately."""

# -- tickets ----------------------------------------------------------------------------

MAX_TICKET: Final = 8 * KIB
"""Characters in a ticket."""

TICKET_CACHE: Final = 10_000
"""Verified tickets remembered."""

TICKET_LEEWAY: Final = 30.0
"""Clock skew allowed at the start of a ticket's validity."""

MAX_AUTHZ_TABLE: Final = 64 * MIB
"""A privilege table larger than this is not read."""

AUTHZ_TTL: Final = 300.0
"""Age at which the privilege table is fetched again."""

AUTHZ_GRACE: Final = 900.0
"""How long an old table is used while no new one can be had."""

# -- retries ----------------------------------------------------------------------------

REPLAY_LIMIT: Final = 64 * KIB
"""Largest request body that is held so that it can be sent again."""

MAX_RETRIES: Final = 2
"""Retries of one request."""

# -- services ---------------------------------------------------------------------------

MAX_SERVED_CONNECTIONS: Final = 1_024
"""Connections to one service, handshakes included. One above it is closed at once, so that its
client goes elsewhere instead of waiting."""

MAX_REQUESTS_PER_CONNECTION: Final = 512
"""Requests of one connection that a service works on; more are refused as not dispatched."""

MAX_REQUESTS: Final = 4_096
"""Requests that a service works on over all connections; more are refused as not dispatched."""

MAX_UNSENT_REPLIES: Final = 1_024
"""Refusals that one peer may leave unread before its connection is cut."""

MAX_REQUEST_BODY: Final = 16 * MIB
"""Largest request body that is read into memory, unless a handler asks for another limit."""

MAX_TYPED_BODY: Final = 256 * KIB
"""Largest body that a typed handler is given, unless its action says otherwise. Each wrong value
in a body costs a hundred times its size while the reasons are made."""

MAX_BODY_KEY: Final = KIB
"""Characters of a key in a typed body; every wrong value below it is told with a copy of it."""

MAX_BODY_ERRORS: Final = 20
"""Reasons told in one reply for a body that does not fit."""

MAX_ERROR_REASON: Final = 200
"""Characters in one such reason."""

MAX_FAILURE_TEXT: Final = 4 * KIB
"""Characters of the text with which a reply is broken off."""

MAX_DOCUMENTATION: Final = 4 * MIB
"""The answer of ``_meta.documentation``; large services of other editions have 400 KiB."""

FAREWELLS: Final = 10
"""How often a service says that it leaves."""

FAREWELL_INTERVAL: Final = 1.0
"""Time from one such announcement to the next."""

STOP_LINGER: Final = 5.0
"""How long a service that announces itself goes on accepting connections after it has said that it
leaves: a collector writes its file within a second or two, clients look at it every second."""

REQUEST_DISCARD: Final = 16 * MIB
"""How much of a body that no handler read is thrown away before its connection is closed."""

HANDSHAKE_TIMEOUT: Final = 10.0
"""Longest that a client may take for TLS."""

STOP_GRACE: Final = 25.0
"""How long requests in flight may take when a service stops. Orchestrators kill after 30."""

CLOSE_TIMEOUT: Final = 2.0
"""How long closing waits for the peer's part before it cuts the connection."""

# -- log lines --------------------------------------------------------------------------

LOG_BURST: Final = 200
"""Equal messages that are written within one LOG_INTERVAL; the others are counted. A stranger who
makes us log fills no disk, and twenty lines a second of one kind are more than anybody reads."""

LOG_INTERVAL: Final = 10.0
"""Seconds over which equal messages are counted."""

MAX_LOG_MESSAGES: Final = 1_024
"""Different messages that are counted at once; all beyond them share one count."""

MAX_LOG_TEXT: Final = 16 * KIB
"""Characters of a message, of a traceback or of one field in a log line."""

MAX_LOG_VALUE: Final = 1 * KIB
"""Characters of a bound value in a log line."""

MAX_LOG_LINE: Final = 64 * KIB
"""Characters of a JSON line; a longer one is written again without extras and traceback."""

MAX_LOG_FIELDS: Final = 16
"""Fields that can be bound at once, for every line carries them."""

# -- subscriptions ----------------------------------------------------------------------

MAX_FILTER_CODES: Final = 10
"""Codes in one subscription; JavaScript services refuse more."""

MAX_SUBDATA_NAME: Final = 1_024
"""Characters in a code or a key."""

MAX_SUBDATA_CODES: Final = 1_000
"""Codes that a service publishes under."""

MAX_SUBDATA_KEYS: Final = 10_000
"""Values that a service publishes, over all codes."""

MAX_SUBDATA_VALUE: Final = 4 * MIB
"""JSON of one published value. An announcement is one."""

MAX_SUBDATA: Final = 16 * MIB
"""JSON of all published values with their names. Every new subscriber is sent what it asks for."""

MAX_SUBSCRIBERS: Final = 512
"""Connections of a service with a subscription: half of MAX_SERVED_CONNECTIONS, since they stay
and would leave no room for requests."""

EVENT_SIZE: Final = 64 * KIB
"""Where an event ends and the next one begins, so that what is under way to a slow reader is not
out of date; one larger value is an event by itself."""

MAX_BACKLOG: Final = 2 * MAX_SUBDATA_KEYS
"""Names of changed values that wait for one reader, values that are gone among them. It is cut
above it, and begins afresh."""

SUBSCRIBER_PATIENCE: Final = 30.0
"""A subscriber that takes nothing for so long, while there is something to take, is cut."""

MAX_CLIENT_MESSAGE: Final = 256 * KIB
"""Body of one subscribe or notify message."""

MAX_CLIENT_MESSAGES: Final = 4 * MIB
"""Bodies of subscribe and notify messages of one connection that are not complete, or wait for
one before them that is not; each counts MESSAGE_COST more."""

MESSAGE_COST: Final = KIB
"""What a message counts for that is held, besides its body."""

MAX_NOTICES: Final = 4_096
"""Notify messages that wait for a service's handler, over all connections; more are dropped."""

MAX_NOTICES_PER_CONNECTION: Final = 256
"""Those of one connection."""

HEARTBEAT: Final = 15.0
"""Time between the PINGs of a subscription, as in JavaScript. JavaScript services close what is
silent for ``beepish.server_timeout``."""

MAX_SUBSCRIBED_KEYS: Final = 100_000
"""Values that one subscription holds."""

MAX_SUBSCRIBED: Final = 32 * MIB
"""JSON of the values that one subscription holds, with their names; also the largest event, and
all events that are not complete: JavaScript sends all values in one."""

SUBSCRIBE_TIMEOUT: Final = 20.0
"""Connecting, subscribing, and receiving the values of now."""

RESUBSCRIBE_FIRST: Final = 0.05
"""First pause before a lost subscription is made again; doubles up to RESUBSCRIBE_MAX."""

RESUBSCRIBE_MAX: Final = 10.0
"""Longest pause before a lost subscription is made again."""
