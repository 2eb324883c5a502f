"""Why a job does or does not run, and how an instance is: from facts to sentences, advice and commands."""
