"""Sockets and addresses: the datagram port, real UDP sockets, and the mux of several protocols on one."""
