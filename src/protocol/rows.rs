//! Statistics as rows of a name and a value, whatever protocol they are written in.

use super::memcache::{DECIMAL_BYTES_MAX, write_decimal};

pub trait Rows {
    /// Appends one row.
    fn row(&mut self, name: &str, value: &[u8]);

    /// Appends a line that is no row, where there are lines; else a row of that name.
    fn line(&mut self, name: &str, line: &[u8]);

    /// Appends what ends them.
    fn end(&mut self);

    /// Appends one row whose value is a number.
    fn number(&mut self, name: &str, number: u64) {
        let mut space = [0; DECIMAL_BYTES_MAX];
        let len = write_decimal(&mut space, number);
        self.row(name, &space[..len]);
    }
}
