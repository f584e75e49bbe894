"""What kind of network we are in: our public address as peers see it, and the kind of NAT before us."""
