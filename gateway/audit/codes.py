"""Every kind of finding: its code word, how bad it is, what it means and what to do about it.

``docs/audit.md`` is made from this table. A code keeps its meaning: scripts ignore findings by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

Severity = Literal["high", "medium", "low"]

SEVERITIES: Final[tuple[Severity, ...]] = ("high", "medium", "low")


@dataclass(frozen=True, slots=True)
class Code:
    """One kind of finding. `subject` says what its findings are about."""

    word: str
    severity: Severity
    title: str
    meaning: str
    remedy: str
    subject: str
    group: str


CODES: dict[str, Code] = {}

_ABOUT: Final = {
    "action": "the action, `Namespace.name~VERSION`",
    "route": "the route, `METHOD /path`",
    "setting": "the setting",
    "file": "the file",
    "service": "the service's name",
}


def _code(
    word: str, severity: Severity, title: str, meaning: str, remedy: str, *, group: str, about: str
) -> Code:
    if word in CODES:
        raise ValueError(f"{word} is there already")
    code = Code(word, severity, title, meaning, remedy, _ABOUT.get(about, about), group)
    CODES[word] = code
    return code


# -- without a ticket -------------------------------------------------------------------

_OPEN: Final[dict[str, Any]] = {"group": "Open to everybody", "about": "action"}

OPEN_WRITE = _code(
    "open_write", "high", "unauthenticated write",
    "The action is announced `noauth` and changes something, or does not say that it only reads. "
    "Everybody who reaches the gateway may call it.",
    "Take `noauth` off the announcement, flag the action `read` if it only reads, or keep its "
    "sector to the mesh. Some are meant to be so, as a log-in: ignore those by name.", **_OPEN,
)  # fmt: skip
OPEN_READ = _code(
    "open_read", "low", "readable without a ticket",
    "The action is announced `noauth` and only reads. Everybody who reaches the gateway sees what "
    "it returns.",
    "Right for what is public. Else take `noauth` off the announcement.", **_OPEN,
)  # fmt: skip
OPEN_EVENTS = _code(
    "open_events", "low", "events without a ticket",
    "`events_open` names the service: everybody who reaches the gateway may follow what it "
    "publishes.",
    "Right for what is public. Else take it out, and give `SERVICE._events` privileges.",
    group="Open to everybody", about="the service, `[SECTOR:]NAME`",
)  # fmt: skip
ROUTE_OPENS_WRITE = _code(
    "route_opens_write", "high", "a route asks for no ticket before a write",
    "The route says `ticket = false`, and the action, which is not flagged `read`, wants one "
    "elsewhere.",
    "Take `ticket = false` off the route.", group="Open to everybody", about="route",
)  # fmt: skip
ROUTE_OPENS_READ = _code(
    "route_opens_read", "medium", "a route asks for no ticket",
    "The route says `ticket = false`, and the action wants one elsewhere.",
    "Take `ticket = false` off the route, unless all that the action returns is public.",
    group="Open to everybody", about="route",
)  # fmt: skip
AUTH_FORWARD = _code(
    "auth_forward", "high", "tickets are not looked at",
    "With `auth_mode = forward` the gateway passes tickets on unread, and lets requests without "
    "one through to every action. Services are on their own.",
    "Give `ticket_keys` and use `enforce`.", group="Open to everybody", about="setting",
)  # fmt: skip
AUTH_VERIFY = _code(
    "auth_verify", "medium", "privileges are not checked",
    "With `auth_mode = verify` every valid ticket passes, whatever its privileges. Services are "
    "on their own.",
    "Use `enforce`.", group="Open to everybody", about="setting",
)  # fmt: skip

# -- routes -----------------------------------------------------------------------------

_ROUTE: Final[dict[str, Any]] = {"group": "Routes", "about": "route"}

ROUTE_NOWHERE = _code(
    "route_nowhere", "medium", "a route leads nowhere",
    "No service announces the action that the route names. Requests get 404.",
    "Correct the name in the routes file, or start the service.", **_ROUTE,
)  # fmt: skip
ROUTE_GET_WRITES = _code(
    "route_get_writes", "medium", "GET to an action that does not read",
    "The route takes GET, and the action is not flagged `read` by all its instances. It is never "
    "called this way.",
    "Flag the action `read` if it only reads, else use another method.", **_ROUTE,
)  # fmt: skip
ROUTE_SHADOWED = _code(
    "route_shadowed", "medium", "a route that no request reaches",
    "Other routes go before this one at each of its URLs.",
    "Take it out, or give it a path of its own.", **_ROUTE,
)  # fmt: skip
ROUTE_OVERLAPS = _code(
    "route_overlaps", "low", "other routes take some of a route's URLs",
    "A literal segment goes before a parameter, and a narrow type before a wide one: `/skus/new` "
    "takes the value `new` of `/skus/{id}`. Whatever has that value cannot be reached here.",
    "Right as long as the parameter never has such a value.", **_ROUTE,
)  # fmt: skip
ROUTE_BYPASSES_SECTOR = _code(
    "route_bypasses_sector", "low", "a route into a sector that is not exposed",
    "The setting `sectors` does not name the action's sector: only this route makes it reachable.",
    "Right when it is meant; it is in no list but the routes file.", **_ROUTE,
)  # fmt: skip

ROUTE_PAGES = _code(
    "route_pages", "low", "a route whose replies are pages or scripts",
    "Browsers run what is in HTML, SVG, XML and scripts as a page of the gateway's own origin: if "
    "somebody else can get text into the reply, it may call every action with the ticket cookie of "
    "whoever looks at it, and read a ticket that the explorer keeps.",
    "Serve what others wrote from another host, or as a type that browsers do not run. Right for "
    "pages that are the service's own.", **_ROUTE,
)  # fmt: skip

# -- privileges -------------------------------------------------------------------------

_TABLE: Final[dict[str, Any]] = {"group": "Privileges", "about": "action"}

UNCONFIGURED = _code(
    "unconfigured", "medium", "an action that nobody may call",
    "The privilege table does not list the action, so every call gets 403.",
    "Add it to the table. If it is there, one of the two spellings is wrong.", **_TABLE,
)  # fmt: skip
NOT_ANNOUNCED = _code(
    "not_announced", "low", "privileges for an action that nobody announces",
    "The privilege table lists an action that is not in the index: a service that is away, a "
    "spelling mistake, or something left over.",
    "Take it out of the table when it is left over: whoever announces it next gets it.", **_TABLE,
)  # fmt: skip
ANY_TICKET_WRITE = _code(
    "any_ticket_write", "medium", "a write that needs no privilege",
    "The privilege table lists the action with no privileges: every valid ticket may change "
    "something.",
    "Give it a privilege.", **_TABLE,
)  # fmt: skip
ANY_TICKET_READ = _code(
    "any_ticket_read", "low", "an action that needs no privilege",
    "The privilege table lists the action with no privileges: every valid ticket may read.",
    "Right for what everybody who is known may see.", **_TABLE,
)  # fmt: skip

# -- the mesh ---------------------------------------------------------------------------

_MESH: Final[dict[str, Any]] = {"group": "The mesh", "about": "action"}

NOAUTH_DISAGREES = _code(
    "noauth_disagrees", "medium", "instances disagree whether a ticket is needed",
    "Some instances announce the action `noauth` and others do not. A ticket is asked for as long "
    "as one of them wants it.",
    "Bring all instances to one version; the odd one out may not be yours.", **_MESH,
)  # fmt: skip
FLAGS_DISAGREE = _code(
    "flags_disagree", "low", "instances disagree about flags",
    "What allows a method counts when all instances have the flag, so methods come and go with "
    "the instances. Usual while a new version is rolled out.",
    "Bring all instances to one version.", **_MESH,
)  # fmt: skip
ENVELOPES_DISAGREE = _code(
    "envelopes_disagree", "low", "instances disagree about envelopes",
    "Not every instance takes what another takes, so that some requests have fewer to go to.",
    "Bring all instances to one version.", **_MESH,
)  # fmt: skip
TIMEOUT_DISAGREES = _code(
    "timeout_disagrees", "low", "instances disagree about the time limit",
    "The longest limit counts for all of them.",
    "Bring all instances to one version.", **_MESH,
)  # fmt: skip
ALIAS_DISPUTED = _code(
    "alias_disputed", "medium", "services mean different actions by one alias",
    "`Namespace._read` and the like stand for the action with that flag, and services name "
    "different ones. The first by spelling is called.",
    "Call the action by its own name, and let one action of a namespace have the flag.",
    group="The mesh", about="the alias, `Namespace._flag~VERSION`",
)  # fmt: skip
ALIAS_AMBIGUOUS = _code(
    "alias_ambiguous", "low", "several actions for one alias",
    "Several actions of the namespace have the flag. `Namespace._read` and the like stand for the "
    "one that the service announces last.",
    "Call the actions by their own names.",
    group="The mesh", about="the alias, `Namespace._flag~VERSION`",
)  # fmt: skip
SEVERAL_OWNERS = _code(
    "several_owners", "medium", "services of different names announce the same actions",
    "Requests are spread over all of them. Either the services belong together, or one has taken "
    "over actions of another. Numbers at the end of a name do not count.",
    "See that both are yours, and that `authorized_services` gives each only what it is for.",
    group="The mesh", about="the services' names",
)  # fmt: skip
SEVERAL_CERTIFICATES = _code(
    "several_certificates", "low", "one name, several certificates",
    "Services of one name announce the same actions and have different certificates. Usual where "
    "each instance has its own; elsewhere somebody uses a name that is not theirs.",
    "Compare the fingerprints with those that you gave out.",
    group="The mesh", about="service",
)  # fmt: skip
NO_AUTHORIZED_SERVICES = _code(
    "no_authorized_services", "high", "every service may offer every action",
    "Without `authorized_services` whoever can get a record into the discovery cache can take "
    "over any action, and is sent the tickets of its callers.",
    "Set `authorized_services`, one line for each certificate.",
    group="The mesh", about="setting",
)  # fmt: skip
AUTHORIZED_FOR_ALL = _code(
    "authorized_for_all", "medium", "a certificate may offer everything in a sector",
    "`authorized_services` has `SECTOR:ALL` for it, in a sector that is reachable over HTTP.",
    "Name the namespaces that the service is for.",
    group="The mesh", about="the certificate's fingerprint",
)  # fmt: skip
NOT_AUTHORIZED = _code(
    "not_authorized", "low", "a service announces what it may not offer",
    "`authorized_services` does not permit some of its actions; they are left out.",
    "Add them to the service's line if they are meant; else ask why it announces them.",
    group="The mesh", about="service",
)  # fmt: skip

# -- settings ---------------------------------------------------------------------------

_SETTING: Final[dict[str, Any]] = {"group": "Settings", "about": "setting"}

ADMIN_EXPOSED = _code(
    "admin_exposed", "medium", "the admin listener can be reached from outside",
    "It has no authentication, and shows services, connections and settings. In a container it has "
    "to be so, and the network around it has to keep strangers out.",
    "Bind it to 127.0.0.1, or close the port to all but your monitoring.", **_SETTING,
)  # fmt: skip
PROXIES_EVERYBODY = _code(
    "proxies_everybody", "medium", "every address is a trusted proxy",
    "`trusted_proxies` covers all addresses, so callers choose their address by "
    "`X-Forwarded-For`.",
    "Name the addresses of your proxies.", **_SETTING,
)  # fmt: skip
LEGACY_RSA = _code(
    "legacy_rsa", "medium", "connections to services without forward secrecy",
    "With `legacy_rsa` a recorded connection can be read by whoever gets a service's key later.",
    "Bring the old services up to date and turn it off.", **_SETTING,
)  # fmt: skip
NO_TLS = _code(
    "no_tls", "low", "plain HTTP",
    "The public listener has no certificate and is not on a loopback address. Tickets can be read "
    "on the way, unless something in front does TLS and the way from there is yours.",
    "Give `tls_certificate` and `tls_key`, or bind to where only your proxy comes.", **_SETTING,
)  # fmt: skip
NO_BODY_LIMIT = _code(
    "no_body_limit", "low", "bodies of any size",
    "Bodies are streamed, so the gateway's memory is safe; the services' need not be.",
    "Set `max_body`.", **_SETTING,
)  # fmt: skip
NO_DRAIN = _code(
    "no_drain", "low", "stopping cuts requests off",
    "With `drain_limit = 0` requests under way are cut off when the gateway stops.",
    "Give them some seconds.", **_SETTING,
)  # fmt: skip
SEVERAL_SECTORS = _code(
    "several_sectors", "low", "several sectors are exposed",
    "Everything that is announced in them is reachable.",
    "Right when it is meant; else expose one, and single actions of others by routes.", **_SETTING,
)  # fmt: skip
CORS_ANY_ORIGIN = _code(
    "cors_any_origin", "low", "pages of every origin may read answers",
    "With `cors_origins = *` any page that somebody opens can read what their browser can get from "
    "here. It cannot act with their cookie.",
    "Name the origins of your pages, unless everything here is public.", **_SETTING,
)  # fmt: skip
CORS_PLAIN_ORIGIN = _code(
    "cors_plain_origin", "medium", "pages that came over plain HTTP may act with the cookie",
    "`cors_origins` names an `http://` origin and `ticket_cookie` is set: whoever can change that "
    "page on its way can act for those who open it.",
    "Serve the page over TLS, and name its `https://` origin.", **_SETTING,
)  # fmt: skip
COOKIE_WITHOUT_TLS = _code(
    "cookie_without_tls", "low", "the cookie counts for pages of our own host over plain HTTP",
    "`ticket_cookie` is set and the public listener has no certificate, so the gateway cannot tell "
    "a page of `http://` from one of `https://` on its own host.",
    "Give `tls_certificate` and `tls_key`; or see to it that what speaks TLS before the gateway "
    "serves nothing without, and that the cookie is `Secure`.", **_SETTING,
)  # fmt: skip
COMPRESSES_WITH_COOKIE = _code(
    "compresses_with_cookie", "medium", "secrets in replies can be guessed by their length",
    "With `compress_replies` and `ticket_cookie` a foreign page can make a browser ask with the "
    "cookie again and again, and whoever sees the lengths of the answers learns what is in them "
    "(BREACH).",
    "Turn `compress_replies` off, or take tickets from headers only.", **_SETTING,
)  # fmt: skip
NO_RATE_LIMITS = _code(
    "no_rate_limits", "low", "callers may ask as often as they like",
    "None of `rate_limit_user`, `rate_limit_client` and `rate_limit_address` is set.",
    "Set at least `rate_limit_address`, unless something before the gateway limits callers.",
    **_SETTING,
)  # fmt: skip
RATE_LIMITS_OPEN = _code(
    "rate_limits_open", "low", "without Redis nothing is limited",
    "With `rate_limit_on_failure = open` every limit is off while Redis is away, which somebody "
    "who floods it may bring about.",
    "Use `local`.", **_SETTING,
)  # fmt: skip
REDIS_WITHOUT_TLS = _code(
    "redis_without_tls", "low", "Redis over plain TCP",
    "`rate_limit_redis` is a `redis://` URL of another host: its password, and who calls how "
    "often, can be read on the way.",
    "Use `rediss://`, unless the way to it is yours.", **_SETTING,
)  # fmt: skip
LONG_LEEWAY = _code(
    "long_leeway", "low", "tickets count long before they begin",
    "`ticket_leeway` is for clocks that differ, and is more than five minutes.",
    "Set the clocks right; 30 s are enough.", **_SETTING,
)  # fmt: skip
LONG_GRACE = _code(
    "long_grace", "low", "privileges that were taken away hold on for long",
    "`authz_ttl` and `authz_grace` together are more than an hour: as long as that, an old table "
    "may serve while the Auth service is away.",
    "Lower them.", **_SETTING,
)  # fmt: skip
SERVER_TIMING = _code(
    "server_timing", "low", "callers see how long services take",
    "`server_timing` adds a header that tells callers about the inside; times help to guess what "
    "a service does.",
    "Turn it off where strangers call.", **_SETTING,
)  # fmt: skip
OPENAPI_EVERYONE = _code(
    "openapi_everyone", "low", "everybody sees every action",
    "`openapi` is `everyone`: names, schemas and descriptions of all exposed actions are shown "
    "without a ticket, also of those that only few may call.",
    "Right where all of it is public. Else `callers`: each sees what his ticket permits.",
    **_SETTING,
)  # fmt: skip

# -- files ------------------------------------------------------------------------------

_FILE: Final[dict[str, Any]] = {"group": "Files", "about": "file"}

SHORT_TICKET_KEY = _code(
    "short_ticket_key", "high", "a ticket key that can be broken",
    "An RSA key of less than 2048 bits. Whoever breaks it makes tickets of their own.",
    "Make a new key for the Auth service, and give both until the old one is out of use.", **_FILE,
)  # fmt: skip
READABLE_SECRET = _code(
    "readable_secret", "high", "a secret that every user of the machine can read",
    "A private key, a passphrase, or a settings file that holds one.",
    "`chmod o-r`; for a Secret in Kubernetes, `defaultMode: 0440`.", **_FILE,
)  # fmt: skip
WRITABLE_FILE = _code(
    "writable_file", "high", "every user of the machine can decide who may do what",
    "Ticket keys, privilege table, `authorized_services` or routes are in a file that everybody "
    "can write to. The gateway follows it while it runs.",
    "`chmod o-w`.", **_FILE,
)  # fmt: skip
CERTIFICATE_EXPIRED = _code(
    "certificate_expired", "high", "the public certificate has expired",
    "Clients that check certificates cannot connect.",
    "Put a new one in its place; a running gateway takes it.", **_FILE,
)  # fmt: skip
CERTIFICATE_EXPIRES = _code(
    "certificate_expires", "medium", "the public certificate expires within 30 days",
    "From then on clients that check certificates cannot connect.",
    "Put a new one in its place; a running gateway takes it.", **_FILE,
)  # fmt: skip
