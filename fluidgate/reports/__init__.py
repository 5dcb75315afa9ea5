"""Tables to read and pictures to look at."""
