"""Meeting through a hub: frames, rooms, the client side and the hub itself (spec 06 §2-§9)."""
