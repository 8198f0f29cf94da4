"""From one tree of parameters to another: transplanting, and what moves afterwards."""
