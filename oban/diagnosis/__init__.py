"""Why a job does or does not run: from the facts that the repository reads to reasons and advice."""
