"""`python -m fastapi_app`: serve and run jobs until Ctrl-C or SIGTERM. Options are those of uvicorn."""

import logging
import signal
import sys

import uvicorn

logging.basicConfig(level=logging.INFO)
# Once it has stopped, uvicorn raises the signal that stopped it again: then all is well.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
uvicorn.main(["fastapi_app.main:app", *sys.argv[1:]])
