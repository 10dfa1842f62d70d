"""Configuration of the node: who may send, where results go, where the spool lies.

A configuration file, of which the command line may replace any line::

    spool: /var/spool/sasm
    allow: [ORTHANC@127.0.0.1, CT1@10.1.2.3]
    destinations:
      pacs: ORTHANC@127.0.0.1:4242
      web: {url: "https://pacs.example/dicom-web", token_env: PACS_TOKEN}
      safe: {ae_title: PACS, host: pacs.example, port: 2762, tls_ca: /etc/sasm/ca.pem, commit_seconds: 600}
    send_to: [pacs]
    quiet_seconds: 10
    restore: {strength: 0.8, device: auto}
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from monai_sasm.node.fields import MAX_PORT, as_list, as_mapping, check_fields, check_port

ANYONE = "*"
INSTALL = "pip install 'monai-sasm[node]'"
MAX_AE_TITLE = 16  # characters of the value representation AE, PS3.5 table 6.2-1

_DICOM_ADDRESS = re.compile(r"(?P<title>[^@]+)@(?P<host>\[[^\]]+\]|[^:@]+):(?P<port>\d+)")


@dataclass(frozen=True)
class DicomPeer:
    """A DICOM application that takes C-STORE.

    Args:
        name: what the configuration calls it.
        ae_title: called AE title.
        host: name or address.
        port: of DICOM.
        tls_ca: file with the certificate of its authority; where given, it is called over TLS.
        tls_certificate: file with our own certificate, where it asks for one.
        tls_key: file with the key of that.
        commit_seconds: ask it for storage commitment, and wait so long for its report; ``None`` does not ask. A job
            counts as sent only when it has committed to all objects. Most destinations report over an association of
            their own: ``allow`` must name them, too.
    """

    name: str
    ae_title: str
    host: str
    port: int
    tls_ca: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    commit_seconds: float | None = None

    def __post_init__(self) -> None:
        check_fields(DicomPeer, vars(self), f"{self.name}: ")
        check_port(f"{self.name}: port", self.port, least=1)
        if not self.host:
            raise ValueError(f"{self.name}: host must be a name or an address, got nothing")
        if self.commit_seconds is not None and self.commit_seconds <= 0:
            raise ValueError(f"{self.name}: commit_seconds must be above 0, got {self.commit_seconds}")
        if self.tls_ca is None and (self.tls_certificate or self.tls_key):
            raise ValueError(f"{self.name}: tls_ca must name the certificate of its authority, or anybody could answer")
        if self.tls_key and self.tls_certificate is None:
            raise ValueError(f"{self.name}: tls_key needs tls_certificate, our own certificate, which it belongs to")


@dataclass(frozen=True)
class WebPeer:
    """A DICOMweb server. Credentials stay in environment variables, of which the configuration holds only the names.

    Args:
        name: what the configuration calls it.
        url: root of the service, for example ``https://pacs.example/dicom-web``.
        token_env: variable that holds a bearer token.
        user_env: variable that holds a user name; needs ``password_env``.
        password_env: variable that holds the password.
        ca_bundle: file with certificates to trust instead of the system's.
        plain_http: send credentials over http without TLS to another machine, for networks that protect them otherwise.

    Raises:
        ValueError: credentials would be sent in the clear, are part of the address, or are given by half or twice; or
            it is no http(s) address.
    """

    name: str
    url: str
    token_env: str | None = None
    user_env: str | None = None
    password_env: str | None = None
    ca_bundle: str | None = None
    plain_http: bool = False

    def __post_init__(self) -> None:
        check_fields(WebPeer, vars(self), f"{self.name}: ")
        try:
            parts = urlsplit(self.url)
            whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # of a port that is none, or brackets that do not match
            whole = False
        if not whole:
            raise ValueError(f"{self.name}: url must be http(s)://HOST[:PORT]/..., with a port from 1 to {MAX_PORT}")
        if parts.username or parts.password:
            raise ValueError(f"{self.name}: credentials belong into environment variables, not into the address")
        if (self.user_env is None) != (self.password_env is None):
            raise ValueError(f"{self.name}: user_env and password_env belong together; give both")
        if self.token_env is not None and self.user_env is not None:
            raise ValueError(f"{self.name}: it is asked with a token or with a name and a password; give one of them")
        if (self.token_env is None and self.user_env is None) or self.plain_http or parts.scheme == "https":
            return
        if not is_loopback(parts.hostname or ""):
            raise ValueError(
                f"{self.name}: credentials are not sent to another machine over http, where everybody on the way can "
                "read them; use https, or say plain_http: true"
            )

    def secret(self, variable: str) -> str:
        """The content of an environment variable that the configuration names."""
        value = os.environ.get(variable, "")
        if not value:
            raise ValueError(f"{self.name}: the environment variable {variable} is not set; export it first")
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"{self.name}: {variable} holds a line break or a character that cannot be sent; check it")
        return value

    def check_secrets(self) -> None:
        """See that all credentials are there.

        Raises:
            ValueError: a variable is not set, or a file is missing.
        """
        for variable in (self.token_env, self.user_env, self.password_env):
            if variable is not None:
                self.secret(variable)
        if self.ca_bundle is not None and not os.path.exists(self.ca_bundle):
            raise ValueError(f"{self.name}: there is no file of certificates at {self.ca_bundle}")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def plain_address(host: str) -> str:
    """An IP address as it is usually written; that of IPv4 also where a socket for both gives it as one of IPv6."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return str(getattr(address, "ipv4_mapped", None) or address)


Peer = DicomPeer | WebPeer


@dataclass(frozen=True)
class Caller:
    """Who may send: an AE title, which anybody can claim, and better also the address it comes from.

    Args:
        ae_title: calling AE title; ``"*"`` is any.
        host: IP address; ``None`` is any.
    """

    ae_title: str
    host: str | None = None

    def admits(self, ae_title: str, host: str) -> bool:
        """Whether a calling AE title from an address is this caller."""
        return self.ae_title in (ANYONE, ae_title) and self.admits_host(host)

    def admits_host(self, host: str) -> bool:
        """Whether an address is one that this caller may call from."""
        return self.host is None or plain_address(self.host) == plain_address(host)


@dataclass(frozen=True)
class NodeConfig:
    """How one node runs.

    Args:
        spool: folder of everything in flight; it holds patient data and belongs on a local disk.
        destinations: where each derived series goes, all of them.
        allow: who may send; everybody else is refused.
        ae_title: the node's own.
        host: address to listen on; the default takes nothing from other machines.
        port: of DICOM; 0 picks a free one.
        http_host: address of ``/healthz`` and ``/metrics``; the default answers no other machines.
        http_port: the port there; 0 picks a free one, ``None`` is off.
        quiet_seconds: a series is complete so long after its last object and its last association.
        interrupted_seconds: the same where an association broke or the node was restarted, for the sender to try again.
        retry_seconds: first pause before something that failed is tried again; it doubles up to ten minutes.
        stalled_minutes: work that gets no further for so long makes the node unhealthy.
        min_free_mb: below so much free disk, objects are refused with "out of resources" (A700).
        tls_certificate: file with the node's certificate; where given, callers are received over TLS only.
        tls_key: file with its key.
        tls_ca: file with an authority's certificate; where given, callers need a certificate of it.
        max_object_mb: longer objects are refused before they are held in memory.
        audit: file of the audit trail; see :class:`monai_sasm.node.audit.Audit`.
        audit_identify: write UIDs into it.
        keep_days: so long quarantine, and what is known of series that were sent, is kept; ``None`` for ever.
        keep_private: keep private attributes in the derived series.
        restore: options of :class:`monai_sasm.restoration.options.Options`, and ``device``, ``precision``, ``trust``.
    """

    spool: Path
    destinations: tuple[Peer, ...]
    allow: tuple[Caller, ...]
    ae_title: str = "SASM"
    host: str = "127.0.0.1"
    port: int = 11112
    http_host: str = "127.0.0.1"
    http_port: int | None = 11180
    quiet_seconds: float = 10.0
    interrupted_seconds: float = 120.0
    retry_seconds: float = 10.0
    stalled_minutes: float = 30.0
    min_free_mb: int = 1024
    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_ca: str | None = None
    max_object_mb: int = 256
    audit: Path | None = None
    audit_identify: bool = False
    keep_days: float | None = None
    keep_private: bool = False
    restore: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(NodeConfig, vars(self))
        for key in ("port", "http_port"):
            if getattr(self, key) is not None:
                check_port(key, getattr(self, key), least=0)
        if not self.destinations:
            raise ValueError("a node needs a destination: destinations={'NAME': 'AE@HOST:PORT'}")
        if not self.allow:
            raise ValueError(f"a node needs to know who may send: allow=['AE']; {ANYONE!r} is everybody")
        _check_title(self.ae_title)
        if self.keep_days is not None and self.keep_days <= 0:
            raise ValueError(f"keep_days must be above 0, got {self.keep_days}; leave it out to keep all")
        if self.tls_certificate is None and (self.tls_key or self.tls_ca):
            raise ValueError("TLS needs tls_certificate, the node's own certificate")
        for key in ("quiet_seconds", "interrupted_seconds", "retry_seconds", "min_free_mb", "stalled_minutes"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} must not be negative, got {getattr(self, key)}")
        if self.max_object_mb < 1:
            raise ValueError(f"max_object_mb must be at least 1, got {self.max_object_mb}")

    def check_secrets(self) -> None:
        """See that the credentials of all destinations are there.

        Raises:
            ValueError: some are not.
        """
        for peer in self.destinations:
            if isinstance(peer, WebPeer):
                peer.check_secrets()


_NOT_PLAIN = ("destinations", "send_to", "allow", "spool", "audit")
_FILES = ("tls_certificate", "tls_key", "tls_ca", "ca_bundle")


def config_from(settings: Mapping[str, Any]) -> NodeConfig:
    """A configuration from plain values, as YAML and the command line give them.

    ``destinations`` maps names to peers (see :func:`peer_from`), ``send_to`` names those in use (all if left out),
    ``allow`` lists ``AE`` or ``AE@ADDRESS``; plain text is a list of one. The other keys are the fields of
    :class:`NodeConfig`.

    Raises:
        ValueError: an unknown key, an unknown destination, a value of another type or that is not allowed, or something
            is missing.
    """
    known = {one.name for one in fields(NodeConfig)} | {"send_to"}
    unknown = sorted(map(str, set(settings) - known))
    if unknown:
        raise ValueError(f"unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    peers = peers_from(settings)
    wanted = list(dict.fromkeys(as_list("send_to", settings.get("send_to")))) or list(peers)
    absent = [name for name in wanted if name not in peers]
    if absent:
        raise ValueError(
            f"send_to names {', '.join(absent)}, destinations has {', '.join(peers) or 'none'}; give one with its "
            "address: destinations={'NAME': 'AE@HOST:PORT'}"
        )
    if not settings.get("spool"):
        raise ValueError("a node needs a folder for what is in flight: spool='DIR'")
    rest = {key: value for key, value in _below_home(settings).items() if key not in _NOT_PLAIN}
    return NodeConfig(
        spool=_place("spool", settings["spool"]),
        audit=_place("audit", settings["audit"]) if settings.get("audit") else None,
        destinations=tuple(peers[name] for name in wanted),
        allow=tuple(_caller(entry) for entry in as_list("allow", settings.get("allow"))),
        **rest | {"restore": as_mapping("restore", settings.get("restore"))},
    )


def _place(name: str, value: Any) -> Path:
    if not isinstance(value, (str, Path)):
        raise ValueError(f"{name} must be a path, got {value!r}")
    return Path(value).expanduser()


def _below_home(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with ``~`` in names of files as a shell would have it, which reads no YAML."""
    return {
        key: os.path.expanduser(value) if key in _FILES and isinstance(value, str) else value
        for key, value in values.items()
    }


def peers_from(settings: Mapping[str, Any]) -> dict[str, Peer]:
    """Name -> peer of the ``destinations`` in settings."""
    destinations = as_mapping("destinations", settings.get("destinations"))
    return {name: peer_from(name, value) for name, value in destinations.items()}


def peer_from(name: str, value: str | Mapping[str, Any]) -> Peer:
    """A peer from ``AE@HOST:PORT``, ``http(s)://...``, or a mapping with the fields of its class.

    Raises:
        ValueError: it is none of these, or a field of it is of another type.
    """
    if isinstance(value, Mapping):
        value = _below_home(as_mapping(name, value))
        kind = WebPeer if "url" in value else DicomPeer
        allowed = {one.name for one in fields(kind)} - {"name"}
        needed = {"url"} if kind is WebPeer else {"ae_title", "host", "port"}
        if set(value) - allowed or needed - set(value):
            raise ValueError(f"{name}: a destination has {', '.join(sorted(allowed))}, got {', '.join(sorted(value))}")
        peer = kind(name, **value)
    elif not isinstance(value, str):
        raise ValueError(f"{name}: a destination is AE@HOST:PORT, http(s)://... or a mapping, got {value!r}")
    elif value.startswith(("http://", "https://")):
        peer = WebPeer(name, value)
    elif match := _DICOM_ADDRESS.fullmatch(value):
        peer = DicomPeer(name, match["title"], match["host"].strip("[]"), int(match["port"]))
    else:
        raise ValueError(f"{name}: a destination is AE@HOST:PORT or http(s)://..., got {value!r}")
    if isinstance(peer, DicomPeer):
        _check_title(peer.ae_title)
    return peer


def _caller(entry: str) -> Caller:
    title, _, host = entry.partition("@")
    if title != ANYONE:
        _check_title(title)
    try:
        ip_address(host or "::")
    except ValueError:  # callers are known by addresses; a name would never be one
        raise ValueError(f"allow: {entry!r} needs an IP address after the @, or none") from None
    return Caller(title, host or None)


def _check_title(title: str) -> None:
    if not 0 < len(title.strip()) <= MAX_AE_TITLE or "\\" in title or not title.isascii() or not title.isprintable():
        raise ValueError(f"an AE title has 1 to {MAX_AE_TITLE} ASCII characters and no backslash, got {title!r}")
