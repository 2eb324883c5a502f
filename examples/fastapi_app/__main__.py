"""`python -m fastapi_app`: serve and run jobs until Ctrl-C or SIGTERM. Takes the options of uvicorn."""

import logging
import signal
import sys

import uvicorn

logging.basicConfig(level=logging.INFO)
# After a clean shutdown, uvicorn raises the signal again; exit with 0 then.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
uvicorn.main(["fastapi_app.main:app", *sys.argv[1:]])
