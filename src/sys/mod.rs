//! The kernel: all of io_uring and libc. With `store/arena` the only room with `unsafe`.
#![allow(unsafe_code, reason = "this room talks to the kernel; each block argues for itself")]

pub mod probe;
pub mod region;
