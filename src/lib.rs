//! ringcached: an in-memory cache on io_uring.

pub mod admin;
pub mod base;
pub mod command;
pub mod config;
pub mod net;
pub mod protocol;
pub mod server;
pub mod store;
pub mod sys;
