//! Bytes to requests, and replies to bytes: one module for each protocol.
//!
//! Sans-IO: no socket, no clock, no store, no allocation. What a request means is `command`'s
//! business.

#![forbid(unsafe_code)]

pub mod binary;
pub mod memcache;
mod rows;

pub use rows::Rows;
