"""Names of spans and attributes, most of them from the semantic conventions for messaging."""

from opentelemetry.semconv._incubating.attributes import error_attributes, messaging_attributes

SYSTEM = messaging_attributes.MESSAGING_SYSTEM
OPERATION = messaging_attributes.MESSAGING_OPERATION_NAME
OPERATION_TYPE = messaging_attributes.MESSAGING_OPERATION_TYPE
QUEUE = messaging_attributes.MESSAGING_DESTINATION_NAME
JOB_ID = messaging_attributes.MESSAGING_MESSAGE_ID
COUNT = messaging_attributes.MESSAGING_BATCH_MESSAGE_COUNT
NODE = messaging_attributes.MESSAGING_CLIENT_ID
ERROR_TYPE = error_attributes.ERROR_TYPE

ENQUEUE = "enqueue"
PROCESS = "process"
_SEND_TYPE = messaging_attributes.MessagingOperationTypeValues.SEND.value
_PROCESS_TYPE = messaging_attributes.MessagingOperationTypeValues.PROCESS.value

WORKER = "oban.worker"
ATTEMPT = "oban.attempt"
MAX_ATTEMPTS = "oban.max_attempts"
STATE = "oban.state"
OUTCOME = "oban.outcome"
#: The reason of a worker that has cancelled its job, redacted.
REASON = "oban.reason"
#: How many jobs of a call were duplicates of unique jobs, and for a single job, the id of the existing one.
CONFLICTS = "oban.conflicts"
CONFLICT_ID = "oban.conflict_id"

#: The attributes that all spans and metrics of an operation have.
ENQUEUEING = {SYSTEM: "oban", OPERATION: ENQUEUE, OPERATION_TYPE: _SEND_TYPE}
PROCESSING = {SYSTEM: "oban", OPERATION: PROCESS, OPERATION_TYPE: _PROCESS_TYPE}


def short_type(name: str) -> str:
    """The name of an exception's class as Python's SDK writes it."""
    return name.removeprefix("builtins.")
