//! What wakes a ring that sleeps: its doorbell, the tick, and an alarm before it.

use std::io;

use io_uring::opcode;
use io_uring::types::{Fd, TimeoutFlags, Timespec};

use super::{NOBODY, Uring};
use crate::sys::region::Region;
use crate::sys::token::Operation;

/// A quarter of a second: who waits for memory should not wait much longer for a look.
const TICK_NS: u32 = 250_000_000;

/// Where in the region which is: the kernel writes the first, and reads the others.
const COUNT_AT: usize = 0;
const TICK_AT: usize = 16;
const ALARM_AT: usize = 32;

#[derive(Debug)]
pub(super) struct Clockwork {
    region: Region,
    /// True exactly while the alarm is in the kernel.
    is_alarm_armed: bool,
}

impl Clockwork {
    pub(super) fn new() -> io::Result<Clockwork> {
        let this = Clockwork { region: Region::map(64)?, is_alarm_armed: false };
        this.set(TICK_AT, TICK_NS);
        Ok(this)
    }

    fn at(&self, offset: usize) -> *mut Timespec {
        self.region.at(offset).cast::<Timespec>().as_ptr()
    }

    fn set(&self, offset: usize, ns: u32) {
        // SAFETY: R1: aligned and inside the region. R3: the kernel reads it when it is handed the
        // timeout, which has ended, or was never made.
        unsafe { self.at(offset).write(Timespec::new().nsec(ns)) };
    }

    pub(super) fn alarm_rang(&mut self) {
        self.is_alarm_armed = false;
    }
}

impl Uring {
    pub(super) fn arm_doorbell(&mut self) {
        let count = self.clockwork.region.at(COUNT_AT).as_ptr();
        let entry = opcode::Read::new(Fd(self.doorbell.raw()), count, 8);
        self.push(entry.build(), Operation::Wake, NOBODY);
    }

    pub(super) fn arm_timer(&mut self) {
        self.arm(TICK_AT, Operation::Timer);
    }

    /// Arms the alarm, unless it is: then it rings soon enough.
    pub(super) fn arm_alarm(&mut self, ns: u64) {
        if std::mem::replace(&mut self.clockwork.is_alarm_armed, true) {
            return;
        }
        let ns = u32::try_from(ns).unwrap_or(TICK_NS).min(TICK_NS);
        self.clockwork.set(ALARM_AT, ns);
        self.arm(ALARM_AT, Operation::Alarm);
    }

    fn arm(&mut self, offset: usize, operation: Operation) {
        let entry = opcode::Timeout::new(self.clockwork.at(offset));
        self.push(entry.flags(TimeoutFlags::empty()).build(), operation, NOBODY);
    }
}
