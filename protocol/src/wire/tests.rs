//! Round trips, forgeries and a message that jupyter_client signed.
