"""A2AL for Trio: agents dialled by cryptographic address over mutually authenticated QUIC."""

__all__: list[str] = []
