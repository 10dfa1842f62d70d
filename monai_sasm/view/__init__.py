"""``sasm view``: images before and after, in a browser on this machine; its page is in static/."""
