"""The running system of one machine: the embedded PostgreSQL, the Prefect server, and which server to talk to."""
