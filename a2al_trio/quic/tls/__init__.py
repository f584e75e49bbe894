"""TLS 1.3 for QUIC (RFC 8446, RFC 9001): sans-IO, client and server."""
