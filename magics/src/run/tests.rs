//! Magics against a notebook and engines that are fakes. Where time passes, it is tokio's paused clock.

mod fakes;
mod px;
mod rest;
