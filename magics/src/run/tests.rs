//! Magics against a notebook and engines that are fakes. Where time passes, it is tokio's paused clock.

mod fakes;
mod parallel;
mod px;
mod rest;
