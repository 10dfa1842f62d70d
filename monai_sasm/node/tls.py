"""DICOM over TLS (PS3.15 annex B.12, BCP 195): TLS 1.2 or later, certificates of both sides where they are named."""

from __future__ import annotations

import ssl

from monai_sasm.node.config import DicomPeer, NodeConfig


def server_context(config: NodeConfig) -> ssl.SSLContext | None:
    """What callers are received with; ``None`` without TLS.

    Raises:
        ValueError: a file is missing or holds no certificate or key.
    """
    if config.tls_certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, config.tls_certificate, config.tls_key, config.tls_ca, "the node")
    if config.tls_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(peer: DicomPeer) -> ssl.SSLContext | None:
    """What a destination is called with; ``None`` without TLS.

    Raises:
        ValueError: a file is missing or holds no certificate or key.
    """
    if peer.tls_ca is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, peer.tls_certificate, peer.tls_key, peer.tls_ca, peer.name)
    return context


def _load(context: ssl.SSLContext, certificate: str | None, key: str | None, authority: str | None, who: str) -> None:
    try:
        if authority is not None:
            context.load_verify_locations(authority)
        if certificate is not None:
            context.load_cert_chain(certificate, key, password=lambda: b"")  # no question on a terminal
    except OSError as error:  # of which ssl.SSLError is one
        raise ValueError(
            f"{who}: the files of TLS cannot be used ({error.strerror or type(error).__name__}); name a certificate, "
            "its key without a password, and the authority's certificate, as PEM files"
        ) from None
