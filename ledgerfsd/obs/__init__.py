"""Observation: what the daemon says about itself to people and to the service manager.

``logging`` sets up structlog on stderr (console or JSON lines); ``sdnotify`` speaks the notification protocol of
systemd, which ``ledgerfs mount`` speaks too. Log lines are for operators; what must be kept is an entry in the journal,
never a log line. Imports only leaf modules and structlog.
"""
