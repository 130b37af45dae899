"""The lab: a web page and an API that caption photos and show how. `minicap serve` starts it."""
