//! evcxr as a pure compiler: sessions, the stub, rewriting, the cache.
