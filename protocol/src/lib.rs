//! The Jupyter message protocol: frames, signing, typed messages, and the tasks that own ZeroMQ sockets.
