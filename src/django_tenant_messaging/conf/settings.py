"""The settings, with their defaults and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from django.conf import settings

from .rules import (
    APP_LABELS,
    FLAG,
    FLAG_OR_HOOK,
    HOOK,
    NETWORKS,
    ORIGINS,
    RATE_LIMIT,
    STRING,
    TEXT,
    Rule,
    at_least,
    or_none,
    seconds,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from django.http import HttpRequest

T = TypeVar("T")

INSIDERS = "django_tenant_messaging.web.details.comes_from_inside"


class Setting(Generic[T]):
    """A typed, lazily read setting; the text after it in :class:`MessagingSettings` is its documentation."""

    def __init__(self, default: T, rule: Rule) -> None:
        self.default = default
        self.rule = rule
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Setting[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> Setting[T] | T:
        if instance is None:
            return self
        value: T = host_settings().get(self.name, self.default)
        return value


def host_settings() -> Mapping[str, Any]:
    """Return the host's ``TENANT_MESSAGING``, empty when it isn't set."""
    value: Mapping[str, Any] = getattr(settings, "TENANT_MESSAGING", {})
    return value


class MessagingSettings:
    """Every setting with its default."""

    MAX_CONTENT_LENGTH = Setting(10_000, at_least(1))
    """Longest message, in characters (Unicode code points after NFC)."""
    MAX_ROOM_MEMBERS = Setting(1_000, at_least(2))
    """Most members of one room."""
    MAX_MENTIONS = Setting(50, at_least(0))
    """Most members that one message notifies by mention; names after that are plain text. Of a text, so many different
    names and 50 more are looked up."""
    EDIT_WINDOW: Setting[float | None] = Setting(None, or_none(seconds(0)))
    """Seconds for which a sender may edit a message; ``None`` is for ever. Deleting is never too late."""
    NEW_MEMBERS_SEE_HISTORY = Setting(False, FLAG)
    """Whether someone who is added to a room sees what was written before. They never get live events of that time."""
    UNREAD_COUNT_LIMIT = Setting(100, at_least(1))
    """Unread counts stop here, so that they cost the same in a room with a million unread messages."""
    HISTORY_PAGE_LIMIT = Setting(200, at_least(1))
    """Most messages of one page of history."""
    HISTORY_PAGE_BYTES = Setting(262_144, at_least(65_536))
    """Most bytes of one page of history, of earlier versions, or of what a socket missed. A page ends early, but holds
    one message at least. A ``hello`` has three quarters of it for rooms, one for users online."""
    RESUME_LIMIT = Setting(1_000, at_least(1))
    """Most timeline entries of one room that a resume sends; a client that missed more pages through the history."""
    MAX_FRAME_BYTES = Setting(131_072, at_least(1_024))
    """Largest frame that a client may send, in bytes of UTF-8. A larger one closes its socket with 4413. The default
    holds the longest message even when JSON spells each character as two escapes of six bytes."""
    MAX_BAD_FRAMES = Setting(20, at_least(1))
    """Frames that can't be read (no JSON, no object, unknown type) or have wrong fields, after which a socket is closed
    with 4400. One of them is forgiven each second. A frame of more than 1,024 bytes counts for more: one of
    ``MAX_FRAME_BYTES`` for a quarter of them besides itself."""
    HEARTBEAT_INTERVAL = Setting(25.0, seconds(0.1))
    """Seconds between two heartbeats of the server. A client that is silent for three of them is closed with 4408."""
    RECONCILE_INTERVAL = Setting(2.0, seconds(0.05))
    """Seconds between two comparisons of the watched rooms with the database: a lost event stays lost no longer."""
    PRESENCE_TTL = Setting(60.0, seconds(1))
    """Seconds after which a user whose server process died counts as offline."""
    SHUTDOWN_SECONDS = Setting(5.0, seconds(0))
    """Most seconds over which a process that is asked to stop (SIGTERM) sends its clients to the others, so that they
    don't all come back at the same moment. With few clients it takes less; 0 leaves it to the server, at once."""
    ACCESS_RECHECK_INTERVAL = Setting(60.0, seconds(1))
    """Seconds between two looks at whether those who are connected may still be. Logouts, saved and deleted users and
    :func:`~.actions.recheck_access` are acted on at once; this finds what was changed in some other way."""
    TYPING_TTL = Setting(6.0, seconds(1))
    """Seconds that a typing indicator is valid without a renewal."""
    EPHEMERAL_ROOM_LIMIT = Setting(200, at_least(2))
    """Most members of a room in which it is told live who types, comes and goes. In larger ones it would be told to
    many for the use of few."""
    SOCKET_QUEUE_EVENTS = Setting(256, at_least(8))
    """Most events that wait for a socket that reads slowly; past that it is caught up from the database."""
    SOCKET_QUEUE_BYTES = Setting(1_048_576, at_least(65_536))
    """Most bytes that wait for a socket that reads slowly, by the memory that they take."""
    USER_QUEUE_BYTES = Setting(4_194_304, at_least(65_536))
    """Most bytes that wait, or are on their way, for all sockets of one user in a process. Past that nothing more is
    read from the database for the user, until a socket reads on or is closed."""
    SOCKET_STUCK_TIMEOUT = Setting(15.0, seconds(0.1))
    """Seconds that a single write to a socket may take before the socket is closed with 4408. The close may take as
    long; a client that doesn't take that either is given up."""
    DATABASE_THREADS = Setting(8, at_least(1))
    """Threads, each with one database connection at most, that a process uses for WebSocket work. A tenant gets as
    many of them as it leaves free to the others: alone half of them, rounded up."""
    DATABASE_QUEUE_LIMIT = Setting(2_000, at_least(1))
    """Most calls of one tenant that wait for a thread in a process, and most connections that wait for the next of the
    calls that they share; more are refused as ``unavailable``."""
    PREPARED_STATEMENTS = Setting(50, at_least(0))
    """Most statements that the connection of each of these threads keeps planned, one or two for each tenant in use.
    Each takes about 0.3 MB of PostgreSQL's memory; without a plan a message takes three times as long there. 0 keeps
    none."""
    STATEMENT_TIMEOUT: Setting[float | None] = Setting(15.0, or_none(seconds(0.1)))
    """Seconds after which PostgreSQL ends a statement of the WebSocket's work, which is refused as ``unavailable``
    then. ``None`` leaves it to the database's own setting, here and in the next two."""
    LOCK_TIMEOUT: Setting[float | None] = Setting(5.0, or_none(seconds(0.1)))
    """Seconds that a statement of the WebSocket's work waits for a lock, such as that of a room's counter or of a
    table that is being migrated."""
    IDLE_TRANSACTION_TIMEOUT: Setting[float | None] = Setting(60.0, or_none(seconds(0.1)))
    """Seconds after which PostgreSQL ends a connection of the WebSocket's work whose transaction does nothing: its
    locks would keep others waiting."""
    COLLECTION_PAUSE: Setting[float | None] = Setting(0.05, or_none(seconds(0)))
    """Seconds that a full collection of Python's garbage may stop a process before what it left is put aside
    (``gc.freeze``), so that the next ones don't look through all connections again. It is taken back when as many
    connections have ended as there are, or after an hour. A server also looks for young garbage less often than Python
    would by itself, once in 10,000 new objects. ``None`` leaves the collector alone."""
    RATE_LIMIT_CONNECT: Setting[tuple[float, float] | None] = Setting((1, 100), RATE_LIMIT)
    """Handshakes of one login, as a pair: so many in each second, and so many at once after a pause. ``None`` for any
    ``RATE_LIMIT`` is no limit. Limits are read when the server starts."""
    RATE_LIMIT_ADDRESS: Setting[tuple[float, float] | None] = Setting((10, 500), RATE_LIMIT)
    """Handshakes from one address that aren't let in: without a login, with an invented or ended one, from pages of
    others. Who was let in before is never refused for it."""
    TRUSTED_PROXIES: Setting[list[str] | tuple[str, ...]] = Setting((), NETWORKS)
    """Addresses and networks of the proxies in front of the server. From them alone the client's address is taken out
    of ``X-Forwarded-For``: the last one in it that isn't a proxy's. Leave it empty where the ASGI server does that,
    such as uvicorn with ``--forwarded-allow-ips``; given ``*`` there, uvicorn takes whatever the client wrote."""
    RATE_LIMIT_BYTES: Setting[tuple[float, float] | None] = Setting((131_072, 1_048_576), RATE_LIMIT)
    """Bytes of one user's frames above 1 KiB, over all sockets. What is too much isn't refused: it waits unread."""
    RATE_LIMIT_SOCKET: Setting[tuple[float, float] | None] = Setting((50, 100), RATE_LIMIT)
    """Frames of one socket, whatever they are; what costs the server more counts as several: see the protocol."""
    RATE_LIMIT_READS: Setting[tuple[float, float] | None] = Setting((10, 100), RATE_LIMIT)
    """Frames by which one user reads what is stored (history, earlier versions, what was missed), over all sockets."""
    RATE_LIMIT_USER: Setting[tuple[float, float] | None] = Setting((20, 60), RATE_LIMIT)
    """Frames by which one user changes something (messages, edits, read positions, typing), over all sockets."""
    RATE_LIMIT_ROOM: Setting[tuple[float, float] | None] = Setting((200, 400), RATE_LIMIT)
    """Messages, edits and deletions in one room."""
    RATE_LIMIT_TENANT: Setting[tuple[float, float] | None] = Setting((2_000, 4_000), RATE_LIMIT)
    """Messages, edits and deletions in one tenant."""
    DAILY_LIMIT_ROOMS: Setting[tuple[float, float] | None] = Setting((100, 30), RATE_LIMIT)
    """Rooms and direct conversations that one user makes, as a pair: so many in a day, and so many at once after a
    pause. It is counted in the database, exactly. ``None`` here and in the next two is no limit;
    :func:`~.actions.unlimited` is for code that isn't a user's."""
    DAILY_LIMIT_MEMBERS: Setting[tuple[float, float] | None] = Setting((2_000, 1_000), RATE_LIMIT)
    """Members that one user adds, those of new rooms included. The second number is also the most of one call."""
    DAILY_LIMIT_LOOKUPS: Setting[tuple[float, float] | None] = Setting((1_000, 200), RATE_LIMIT)
    """Usernames that one user has looked up, by the forms that ask for people: each answers whether there is such a
    user. The second number is also the most of one form."""
    MAX_LIMITED_FRAMES = Setting(100, at_least(1))
    """Frames in a row that are refused for the socket's or its user's limit before the socket is closed with 4429."""
    MAX_SOCKETS_PER_USER = Setting(50, at_least(1))
    """Most sockets of one user in one process; another one is refused with 4429."""
    MAX_ROOMS_PER_SOCKET = Setting(1_000, at_least(1))
    """Most rooms that a socket follows from its start: of a user with more of them, those with the latest activity. As
    many again may be added by joining and using others. Where names are long they are fewer: see
    ``HISTORY_PAGE_BYTES``."""
    MIGRATION_CHECK_TTL = Setting(60.0, seconds(0))
    """Seconds for which a process believes that a schema is ready, unless it migrates it itself or meets a missing
    table: the longest time that passes before it notices what others did to the schema."""
    MIGRATION_RECHECK_INTERVAL = Setting(2.0, seconds(0.05))
    """Seconds after which a schema that isn't ready is looked at again: how soon a repaired tenant is served."""
    REQUIRED_APPS: Setting[list[str] | tuple[str, ...] | None] = Setting(None, or_none(APP_LABELS))
    """Labels of the apps whose missing migrations, tables and columns make a tenant unready; this app always does.
    ``None`` is all that the tenant's type has. What another app lacks then closes no tenant, and its own pages fail;
    name the apps of your users, sessions and tenants, which nearly every page needs."""
    KEEP_FAILED_TENANTS = Setting(False, FLAG)
    """Whether a tenant whose first migration failed is kept, with its half-made schema, for diagnosis. Inside a
    transaction nothing can be kept."""
    SHOW_MIGRATION_DETAILS: Setting[bool | str | Callable[[HttpRequest], bool]] = Setting(INSIDERS, FLAG_OR_HOOK)
    """Who sees, when a tenant isn't ready, which schema that is, at which domain, what is missing there, and the
    command that repairs it: everybody, nobody, or those whom ``callable(request) -> bool`` lets. It is asked before
    sessions and users are known, so it goes by addresses and headers; one that raises lets nobody. The default is
    :func:`~.web.details.comes_from_inside`: everybody while ``DEBUG`` is on, else the addresses of Django's
    ``INTERNAL_IPS``, unless a proxy stands between."""
    SHOW_HEALTH_DETAILS: Setting[bool | str | Callable[[HttpRequest], bool]] = Setting(INSIDERS, FLAG_OR_HOOK)
    """Who sees in the health view how many schemas there are of each state, which aren't ready, and why: everybody,
    nobody, or those whom ``callable(request) -> bool`` lets. All others see whether all is well. The hook finds in
    ``request.user`` nobody whom the tenant of the address doesn't let in. The default is that of
    ``SHOW_MIGRATION_DETAILS``."""
    CHANNEL_LAYER = Setting("default", TEXT)
    """Alias in ``CHANNEL_LAYERS`` of the layer that carries hints between processes."""
    DEPLOYMENT = Setting("", STRING)
    """What tells this site from others on the same channel layer, besides ``SECRET_KEY``. Empty, it is the address of
    the tenants' database in ``DATABASES`` (``HOST``, ``PORT``, ``NAME``). Set it, the same in all its processes,
    if some of them reach that database by another address (as by PgBouncer): otherwise they don't believe each other's
    hints, and learn from the database within ``RECONCILE_INTERVAL``."""
    ALLOWED_ORIGINS: Setting[list[str] | tuple[str, ...]] = Setting((), ORIGINS)
    """Origins besides the tenant's own domains from which a page may open the WebSocket: scheme, host, and port if it
    isn't the scheme's own, as browsers write them."""
    TENANT_MEMBERSHIP: Setting[str | Callable[[Any, str], bool] | None] = Setting(None, HOOK)
    """``callable(user, schema_name) -> bool`` (or its dotted path): whether a user may use the tenant, by its pages,
    its sockets or the admin's part about messages; superusers are asked for as well. Required when the user model lives
    in the shared schema, where being logged in says nothing about the tenant."""


messaging_settings = MessagingSettings()


def known_settings() -> Iterator[Setting[Any]]:
    """Yield every setting, in the order of the documentation."""
    return (value for value in vars(MessagingSettings).values() if isinstance(value, Setting))
