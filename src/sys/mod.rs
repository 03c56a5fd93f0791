//! (room to be built)

pub mod user;
